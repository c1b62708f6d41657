"""Benchmarks' data sets by name: where their files lie under --data_root, and how they are read.

None is downloaded. Some benchmarks keep their data as pickles, which are never opened here:
docs/suite.md has what exports them in those tools' own environments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import fsspec

from pipeline.runtime.errors import InputError
from pipeline.runtime.text import some

RULES = ("scaffold", "size", "cluster")  # of jobs.split, without a column
EXPORTED = (".parquet", ".json", ".json.gz", ".csv", ".csv.gz")
TABLES = (".csv", ".csv.gz", ".parquet", ".tsv")
OUR_COLUMNS = {"split_column": "split", "label_column": "label", "domain_column": "domain"}
# MoleculeNet's tables have a label column each; of others it is named by the entry of --data.
LABELS = {
    "bace": "Class", "bbbp": "p_np", "esol": "measured log solubility in mols per litre",
    "freesolv": "expt", "hiv": "HIV_active", "lipophilicity": "exp",
}  # fmt: skip

DRUGOOD = tuple(
    f"lbap_core_{measure}_{by}"
    for measure, by in product(("ic50", "ec50"), ("scaffold", "size", "assay"))
)
GOOD = tuple(
    ":".join(parts)
    for parts in product(
        ("hiv", "pcba", "zinc"), ("scaffold", "size"), ("covariate", "concept", "no_shift")
    )
)


@dataclass(frozen=True)
class NamedFile:
    """A data set that has a name.

    Attributes
    ----------
    uri : of its file.
    settings : of training: its columns, and the sampling of the papers.
    split : settings of jobs.split, for a table without splits.
    note : what of the file is left aside.
    """

    uri: str
    settings: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] | None = None
    note: str | None = None


def is_named(text: str) -> bool:
    """Whether a text is the name of a benchmark's data set, not of a file."""
    return text.partition(":")[0] in _FAMILIES and "://" not in text


def named_file(name: str, root: str) -> NamedFile:
    """The file of a benchmark's data set.

    Parameters
    ----------
    name : `drugood:SPLIT`, `good:SET:DOMAIN:SHIFT`, `moleculeace:TARGET:RULE` or
        `moleculenet:TABLE:RULE`, where RULE is one of RULES.
    root : --data_root.

    Raises
    ------
    InputError
        If there is no such set, or its file is not there; says where to get it.
    """
    family, _, rest = name.partition(":")
    return _FAMILIES[family](rest, root)


def _drugood(rest: str, root: str) -> NamedFile:
    _check("drugood", rest, DRUGOOD)
    uri = _found(
        f"drugood:{rest}", f"{root}/drugood/{rest}", (".json", ".json.gz"),
        f"take {rest}.json, which DrugOOD's curation writes or its site offers "
        "(https://drugood.github.io)",
    )  # fmt: skip
    return NamedFile(uri, {"sampling": "drugood"})


def _good(rest: str, root: str) -> NamedFile:
    _check("good", rest, GOOD)
    uri = _found(
        f"good:{rest}", f"{root}/good/{rest.replace(':', '_')}", EXPORTED,
        "export it from GOOD (https://github.com/divelab/GOOD), whose files are pickles, in GOOD's "
        "own environment: docs/suite.md has the lines",
    )  # fmt: skip
    columns = {} if ".json" in uri else OUR_COLUMNS
    return NamedFile(uri, {"sampling": "good", **columns})


def _moleculeace(rest: str, root: str) -> NamedFile:
    target, rule = _with_rule("moleculeace", rest, "CHEMBL204_Ki")
    uri = _found(
        f"moleculeace:{rest}", f"{root}/moleculeace/{target}", TABLES,
        "take it from MoleculeACE (https://github.com/molML/MoleculeACE), folder "
        "MoleculeACE/Data/benchmark_data",
    )  # fmt: skip
    note = "MoleculeACE's own split into train and test has no OOD molecules: it is left aside"
    return NamedFile(uri, {"label_column": "y"}, {"by": rule}, note)


def _moleculenet(rest: str, root: str) -> NamedFile:
    table, rule = _with_rule("moleculenet", rest, "bbbp")
    uri = _found(
        f"moleculenet:{rest}", f"{root}/moleculenet/{table}", TABLES,
        f"take {table}.csv from MoleculeNet (https://moleculenet.org)",
    )  # fmt: skip
    label = LABELS.get(table.lower())
    return NamedFile(uri, {"label_column": label} if label else {}, {"by": rule})


_FAMILIES = {
    "drugood": _drugood, "good": _good, "moleculeace": _moleculeace, "moleculenet": _moleculenet,
}  # fmt: skip


def _check(family: str, rest: str, known: Sequence[str]) -> None:
    if rest not in known:
        raise InputError(
            f"--data {family}:{rest}: no such set; there are: "
            f"{', '.join(f'{family}:{name}' for name in known)}"
        )


def _with_rule(family: str, rest: str, example: str) -> tuple[str, str]:
    table, _, rule = rest.rpartition(":")
    if not table or rule not in RULES:
        raise InputError(
            f"--data {family}:{rest}: name the table and the rule that splits it "
            f"({', '.join(RULES)}), as {family}:{example}:scaffold; for others give file and "
            "split in a YAML file"
        )
    return table, rule


def _found(name: str, stem: str, endings: Sequence[str], advice: str) -> str:
    """The file of a stem that is there."""
    for ending in endings:
        fs, path = fsspec.url_to_fs(stem + ending)
        if fs.exists(path):
            return stem + ending
    others = [f"*{ending}" for ending in endings[1:]]
    raise InputError(
        f"--data {name}: no file {stem}{endings[0]} (or {some(others)}). None is downloaded: "
        f"{advice}, put it there, or name its folder by --data_root"
    )
