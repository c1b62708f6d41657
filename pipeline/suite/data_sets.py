"""The data sets of a suite: entries of --data to molecules, each file read once."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.folders import data_files
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.roles import ROLES, assign_roles
from pipeline.molecules.settings import SamplingSettings, SourceSettings, SplitSettings
from pipeline.molecules.sources import Molecules, parse_rows
from pipeline.molecules.splitting.run import run_splitting
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute
from pipeline.suite.named_data import is_named, named_file
from pipeline.suite.settings import SuiteSettings, check_value
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

ENTRY = ("name", "file", "split")
# Settings that an entry of --data may have of its own.
OWN = {f.name for kind in (SourceSettings, SamplingSettings) for f in fields(kind)} - {
    "data_file", "dataset",
}  # fmt: skip
SPLITS = {f.name for f in fields(SplitSettings)} - {f.name for f in fields(SourceSettings)} - {
    "output",
}  # fmt: skip


@dataclass(frozen=True)
class DataSet:
    """A data set that was read.

    Attributes
    ----------
    name : unique in the suite.
    settings : of training, with its file, columns and sampling.
    source : all its molecules, and what was rejected.
    """

    name: str
    settings: TrainSettings
    source: Molecules

    def sample(self, changes: Mapping[str, Any]) -> Sample:
        """The molecules that settings of sampling choose, with roles."""
        settings = replace(self.settings, **changes)
        found = assign_roles(self.source.molecules, settings, settings.data_file, tuple(ROLES))
        return Sample(self.name, found)


@dataclass(frozen=True)
class Sample:
    """Molecules of a data set with roles.

    Attributes
    ----------
    data : name of the data set.
    molecules : as `assign_roles` gives them.
    """

    data: str
    molecules: pa.Table

    @cached_property
    def digest(self) -> str:
        """Stands for the molecules, their roles, labels and domains."""
        return _digest(self.molecules, ("key", "smiles", "role", "label", "domain"))

    @cached_property
    def tests(self) -> pa.Table:
        """The test molecules."""
        roles = pa.array(["id_test", "ood_test"])
        return self.molecules.filter(pc.is_in(self.molecules["role"], roles))

    @cached_property
    def tests_digest(self) -> str:
        """Stands for the test molecules."""
        return _digest(self.tests, ("id", "key", "smiles", "role"))


def training_settings(settings: SuiteSettings) -> TrainSettings:
    """What all trainings of a suite have in common."""
    values = {f.name: getattr(settings, f.name) for f in fields(TrainSettings)}
    common = TrainSettings(**values)
    return replace(
        common,
        output_dir=absolute(common.output_dir),
        cache_root=absolute(common.cache_root),
    )


def entries_of(settings: SuiteSettings) -> list[dict[str, Any]]:
    """The entries of --data as objects with `name` and `file`, checked.

    Raises
    ------
    InputError
        If one has an unknown key, or no file, or two have the same name.
    """
    entries = []
    for given in settings.data:
        entry = {"file": given} if isinstance(given, str) else dict(given)
        unknown = sorted(entry.keys() - {*ENTRY, *OWN})
        if unknown:
            raise InputError(
                f"--data: {given} has the unknown key {unknown[0]!r}; there are: "
                f"{', '.join([*ENTRY, *sorted(OWN)])}"
            )
        if not isinstance(entry.get("file"), str):
            raise InputError(f"--data: {given} has no file; give a path, or a benchmark's name")
        if not isinstance(entry.get("split", {}), dict):
            raise InputError(f"--data: split of {entry['file']}: give settings of jobs.split, "
                             "as {by: scaffold}")  # fmt: skip
        entry["name"] = str(entry.get("name") or _short(entry["file"]))
        entries.append(entry)
    names = [entry["name"] for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--data: two are called {name}; give each a name of its own, in a "
                             "YAML file as {name: …, file: …}")  # fmt: skip
    return entries


def located(settings: SuiteSettings) -> dict[str, tuple[TrainSettings, dict[str, Any] | None]]:
    """By name of a data set, where its file is and how it is read and split; nothing is read.

    Raises
    ------
    InputError
        If a file is not there, or its head shows that it cannot be read.
    """
    common, found = training_settings(settings), {}
    for entry in entries_of(settings):
        own = {key: value for key, value in entry.items() if key in OWN}
        uri, split = entry["file"], entry.get("split")
        if is_named(uri):
            known = named_file(uri, settings.data_root.rstrip("/"))
            uri, own = known.uri, {**known.settings, **own}
            split = split or known.split
            if known.note:
                log.info("%s: %s", entry["name"], known.note)
        for key, value in own.items():
            check_value(f"--data: {entry['name']}", key, value)
        each = replace(common, data_file=absolute(uri), dataset=entry["name"], **own)
        if split is not None:
            split = _split_settings(each, split, entry["name"])
        check_files(split or each)
        found[entry["name"]] = each, split
    return found


def read_data(located: Mapping[str, tuple[TrainSettings, Any]]) -> dict[str, DataSet]:
    """Read each data set once; tables without splits are split first. By name.

    Raises
    ------
    InputError
        If a file is wrong.
    """
    made = {}
    for name, (settings, split) in located.items():
        if split is not None:
            settings = _from_split(settings, split)
        source = parse_rows(read_rows(settings), settings)
        made[name] = DataSet(name, settings, source)
    return made


def _short(uri: str) -> str:
    """A benchmark's name as it is; of a file its name without endings."""
    return uri if is_named(uri) else uri.rstrip("/").rpartition("/")[2].partition(".")[0]


def _split_settings(settings: TrainSettings, split: dict[str, Any], name: str) -> SplitSettings:
    unknown = sorted(split.keys() - SPLITS)
    if unknown:
        raise InputError(
            f"--data: split of {name} has the unknown key {unknown[0]!r}; there are: "
            f"{', '.join(sorted(SPLITS))}"
        )
    shared = {f.name: getattr(settings, f.name) for f in fields(SourceSettings)}
    for key, value in split.items():
        check_value(f"--data: split of {name}", key, value, SplitSettings)
    return SplitSettings(**shared, **split, output="split.json.gz")


def _from_split(settings: TrainSettings, split: SplitSettings) -> TrainSettings:
    """The settings that read the split; it is made if no run before has made it."""
    name = hashlib.blake2b(digest_size=8)
    where = ("output", "data_file", "dataset")
    decides = {key: value for key, value in asdict(split).items() if key not in where}
    name.update(json.dumps(decides, sort_keys=True).encode())
    for file in data_files(split.data_file):
        with fsspec.open(file.uri, "rb") as content:
            while piece := content.read(2**20):
                name.update(piece)
    uri = f"{settings.output_dir}/splits/{name.hexdigest()}.json.gz"
    fs, path = fsspec.url_to_fs(uri)
    if not fs.exists(path):
        made = run_splitting(replace(split, output=uri))
        sizes = ", ".join(f"{part} {size:,}" for part, size in made["sizes"].items())
        log.info("%s: split by %s into %s", settings.dataset, made["order"], sizes)
    # The split names its columns itself.
    label = "reg_label" if split.label_column else None
    none = {f"{column}_column": None for column in ("id", "domain", "split")}
    return replace(settings, data_file=uri, smiles_column="smiles", label_column=label, **none)


def _digest(molecules: pa.Table, columns: tuple[str, ...]) -> str:
    content = json.dumps(molecules.select(list(columns)).to_pydict())
    return hashlib.blake2b(content.encode(), digest_size=10).hexdigest()
