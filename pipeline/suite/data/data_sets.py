"""The data sets of a suite: entries of --data to molecules, each file read once."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import fsspec
import pyarrow as pa

from pipeline.molecules.folders import data_files, kind_of_source
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.kinds import SEQUENCE
from pipeline.molecules.roles import ROLES, assign_roles, ood_wanted
from pipeline.molecules.settings import SamplingSettings, SourceSettings, SplitSettings
from pipeline.molecules.sources import Molecules, parse_rows
from pipeline.molecules.splitting.run import run_splitting
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute
from pipeline.runtime.train.ray_train import decisive
from pipeline.suite.data.named_data import is_named, named_file
from pipeline.suite.data.roles import tests_of
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
# Columns that stand for a sample's molecules, and for its test molecules, if they are there.
DECISIVE = ("key", "smiles", "role", "label", "domain", "structure")
DECISIVE_OF_TESTS = ("id", "key", "smiles", "role", "structure")


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
        """The molecules that settings of sampling choose, with roles.

        Parameters
        ----------
        changes : of the data set's settings; an `ood_ratio` among them is swept, and must be
            reached.
        """
        settings = replace(self.settings, **changes)
        found = assign_roles(self.source.molecules, settings, settings.data_file, tuple(ROLES))
        return Sample(self.name, found, _unreached(self.name, found, changes.get("ood_ratio")))


@dataclass(frozen=True)
class Sample:
    """Molecules of a data set with roles.

    Attributes
    ----------
    data : name of the data set.
    molecules : as `assign_roles` gives them.
    fault : why nothing is trained on them: fewer OOD ones than a swept ratio asks for.
    """

    data: str
    molecules: pa.Table
    fault: str | None = None

    @cached_property
    def digest(self) -> str:
        """Stands for the molecules, their roles, labels and domains."""
        return digest_of(self.molecules, DECISIVE)

    @cached_property
    def tests(self) -> pa.Table:
        """The test molecules."""
        return tests_of(self.molecules)

    @cached_property
    def tests_digest(self) -> str:
        """Stands for the test molecules."""
        return digest_of(self.tests, DECISIVE_OF_TESTS)


def _unreached(data: str, molecules: pa.Table, ratio: float | None) -> str | None:
    """Why a swept --ood_ratio cannot be had, if so, with the largest that can."""
    if ratio is None:
        return None
    roles = molecules["role"].to_pylist()
    id_count, there = roles.count("id_train"), roles.count("ood_train")
    wanted = ood_wanted(ratio, id_count)
    if wanted <= there:
        return None
    digits = 2 - math.floor(math.log10(there / id_count))  # three that count, rounded down
    largest = math.floor(there / id_count * 10**digits) / 10**digits
    return (
        f"--sweep ood_ratio {ratio:g} asks for {wanted:,} OOD training molecules of {data}, and "
        f"there are {there:,} to {id_count:,} ID ones: {largest:g} is the largest there"
    )


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
        If a file is not there, or its head shows that it cannot be read; or if data sets that are
        tested on each other keep different fragments.
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
    if settings.cross:
        _check_fragments({name: each.fragments for name, (each, _) in found.items()})
    return found


def _check_fragments(fragments: Mapping[str, str]) -> None:
    """Across data sets, molecules that training saw are known by SMILES made in one way."""
    if len(set(fragments.values())) > 1:
        told = ", ".join(f"{name}: {kind}" for name, kind in fragments.items())
        raise InputError(
            f"--cross: fragments differ ({told}), so that test molecules that training saw would "
            "not be known again; give all data sets the same"
        )


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
    name.update(json.dumps(decisive(split, where), sort_keys=True).encode())
    for file in data_files(split.data_file, split.sequence_column):
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
    kind = kind_of_source(split)
    if kind == SEQUENCE:
        none["sequence_column"] = kind.name
    return replace(settings, data_file=uri, smiles_column="smiles", label_column=label, **none)


def digest_of(molecules: pa.Table, columns: tuple[str, ...]) -> str:
    """Stands for these columns of molecules; those that are not there say nothing."""
    there = [column for column in columns if column in molecules.column_names]
    content = json.dumps(molecules.select(there).to_pydict())
    return hashlib.blake2b(content.encode(), digest_size=10).hexdigest()
