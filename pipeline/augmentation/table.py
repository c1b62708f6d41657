"""A file's rows as training, validation and test of a rare class, with the groups of each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.augmentation.settings import AugmentSettings
from pipeline.generation.class_rows import ReadRows, matrix, read_classed, rejections
from pipeline.generation.source import check_features
from pipeline.molecules.reading.missing import is_missing
from pipeline.molecules.reading.raw_rows import OTHER_SPLITS
from pipeline.molecules.roles import check_overlap
from pipeline.runtime.errors import InputError
from pipeline.runtime.text import some

log = logging.getLogger(__name__)

TRAIN, TESTS = "train", ("ood_test", "iid_test")
LEAST_RARE = 20  # training rows of the rare class
FEW = 20  # groups with rare rows, from which on intervals mean something


class Part(NamedTuple):
    """Rows of a split: features (n, d) float32, is_rare (n,) bool, numbers of groups (n,)."""

    features: np.ndarray
    is_rare: np.ndarray
    groups: np.ndarray

    def counts(self) -> dict[str, int]:
        """Rows, rare rows, groups, and groups with rare rows."""
        return {
            "rows": len(self.groups), "rare": int(self.is_rare.sum()),
            "groups": len(np.unique(self.groups)),
            "groups_with_rare": len(np.unique(self.groups[self.is_rare])),
        }  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows by what they are for; what the file holds = these + rejected + those of other splits.

    Attributes
    ----------
    tests : by split.
    rare, common : the classes' names.
    rejected : of `REJECTED`.
    warnings : what a reader of the results must know.
    """

    train: Part
    val: Part
    tests: Mapping[str, Part]
    rare: str
    common: str
    rejected: pa.Table
    rows_in: int
    other_splits: int
    notes: Sequence[str]
    warnings: Sequence[str]
    described: str


def read_table(settings: AugmentSettings) -> Table:
    """Read, and for molecules encode, the rows of a data file.

    Raises
    ------
    InputError
        If there are not two classes, a split that is needed has not both of them, training has
        fewer than 20 rare rows, or a column or feature cannot be used.
    """
    read = read_classed(settings, settings.group_column)
    if settings.features_column is None:
        check_overlap(read.table, allow=settings.allow_overlap, source=settings.data_file)
    table, rejected = _usable(read)
    names = _splits(table, settings)
    table = table.set_column(table.column_names.index("split"), "split", pa.array(names))
    val, tests = _chosen(Counter(names), settings)
    used = pc.is_in(table["split"], pa.array([TRAIN, val, *tests]))
    other = table.num_rows - (pc.sum(used).as_py() or 0)
    table = table.filter(used)
    rare, common = _classes(table, settings)
    features = matrix(table["features"])
    check_features(features, table["id"].to_pylist(), settings)
    groups, notes = _groups(table["group"].to_pylist(), settings)
    is_rare = np.array(table["class"].to_pylist(), object) == rare
    splits = np.array(table["split"].to_pylist(), object)
    parts = {
        split: Part(*(each[splits == split] for each in (features, is_rare, groups)))
        for split in (TRAIN, val, *tests)
    }
    _check_parts(parts, rare, common, settings)
    return Table(
        parts[TRAIN], parts[val], {test: parts[test] for test in tests}, rare, common, rejected,
        read.rows_in, other, [*read.notes, *notes], _warnings(parts, tests, rare), read.described,
    )  # fmt: skip


def _usable(read: ReadRows) -> tuple[pa.Table, pa.Table]:
    """The rows that have a class and a split, and all that are rejected."""
    table, rejected = read.table, [read.rejected]
    for column in ("class", "split"):
        lacks = pa.array([is_missing(text) for text in table[column].to_pylist()], pa.bool_())
        without = table.filter(lacks).select(["id", "smiles"])
        rejected.append(rejections(without, column, f"it has no {column}"))
        table = table.filter(pc.invert(lacks))
    return table, pa.concat_tables(rejected)


def _splits(table: pa.Table, settings: AugmentSettings) -> list[str]:
    """Each row's split by its usual name."""
    if not table.num_rows:
        raise InputError(
            f"{settings.data_file}: no row has a class and a split; name the columns by "
            "--class_column and --split_column, or make a split with jobs.split"
        )
    return [_usual(name) for name in table["split"].to_pylist()]


def _usual(split: str) -> str:
    return OTHER_SPLITS.get(split.strip().casefold(), split.strip())


def _chosen(sizes: Counter[str], settings: AugmentSettings) -> tuple[str, list[str]]:
    """The splits for validation and test. InputError if a split has no rows, or two are one."""
    val, tests = _usual(settings.val_split), [_usual(name) for name in settings.test_split]
    there = some([f"{name} ({size:,})" for name, size in sorted(sizes.items())], 9)
    if not tests:
        tests = [name for name in TESTS if name in sizes and name != val][:1]
    if not tests:
        raise InputError(
            f"{settings.data_file}: no test rows: no split is {' or '.join(TESTS)}; there are "
            f"{there}. Name one by --test_split"
        )
    for flag, name in (("split_column", TRAIN), ("val_split", val),
                       *(("test_split", test) for test in tests)):  # fmt: skip
        if name not in sizes:
            raise InputError(
                f"{settings.data_file}: no rows of split {name} (--{flag}); there are {there}"
            )
    if len({TRAIN, val, *tests}) < 2 + len(tests):
        raise InputError(
            f"--val_split {val}, --test_split {' '.join(tests)}: they must differ from each other "
            f"and from {TRAIN}"
        )
    return val, tests


def _classes(table: pa.Table, settings: AugmentSettings) -> tuple[str, str]:
    """The rare class and the other one. InputError if there are not two, or it is neither."""
    sizes = Counter(table["class"].to_pylist())
    told = some([f"{name!r} ({size:,})" for name, size in sizes.most_common()], 6)
    if len(sizes) != 2:
        raise InputError(
            f"{settings.data_file}: there must be two classes, found {told}; see --class_column"
        )
    training = table.filter(pc.equal(table["split"], TRAIN))
    counts = Counter(training["class"].to_pylist())
    rare = settings.rare_class
    if rare is None:
        rare = min(sorted(sizes), key=lambda name: counts[name])
    if rare not in sizes:
        raise InputError(f"--rare_class {rare}: no such class; there are {told}")
    return rare, next(name for name in sizes if name != rare)


def _groups(names: Sequence[str | None], settings: AugmentSettings) -> tuple[np.ndarray, list[str]]:
    """The number of each row's group, one of its own for a row without, and what is to be told."""
    numbers: dict[str, int] = {}
    found = np.empty(len(names), np.int64)
    alone = 0
    for row, name in enumerate(names):
        if is_missing(name):
            alone += 1
            found[row] = -alone
        else:
            found[row] = numbers.setdefault(name, len(numbers))
    if not alone:
        return found, []
    told = (
        f"{alone:,} of {len(names):,} rows have no group (--group_column): each counts as a group "
        "of its own; if rows depend on each other, intervals are too narrow"
    )
    log.warning("%s: %s", settings.data_file, told)
    return found, [told]


def _check_parts(
    parts: Mapping[str, Part], rare: str, common: str, settings: AugmentSettings
) -> None:
    """InputError if a part has not both classes, or too few or too many rare rows to learn from."""
    for split, part in parts.items():
        for name, count in ((rare, part.is_rare.sum()), (common, (~part.is_rare).sum())):
            if not count:
                raise InputError(f"{settings.data_file}: split {split} has no row of class {name}")
    rows = parts[TRAIN].counts()
    if rows["rare"] < LEAST_RARE:
        raise InputError(
            f"{settings.data_file}: {rows['rare']} training rows of the rare class {rare}, at "
            f"least {LEAST_RARE} are needed"
        )
    if rows["rare"] >= settings.rare_share * rows["rows"]:
        raise InputError(
            f"--rare_share {settings.rare_share:g}: class {rare} has {rows['rare']:,} of "
            f"{rows['rows']:,} training rows already; ask for a larger share, or name the other "
            "class by --rare_class"
        )


def _warnings(parts: Mapping[str, Part], tests: Sequence[str], rare: str) -> list[str]:
    """What makes test results say less than they seem to."""
    train, found = parts[TRAIN], []
    known = {hash(row.tobytes()) for row in train.features}
    for test in tests:
        part = parts[test]
        repeated = sum(hash(row.tobytes()) in known for row in part.features)
        if repeated:
            found.append(
                f"{test}: {repeated:,} of {len(part.groups):,} rows have the features of a "
                "training row: the classifier has seen them"
            )
        groups = part.counts()["groups_with_rare"]
        if groups < FEW:
            found.append(
                f"{test}: class {rare} is in {groups} groups: intervals of so few are rough, and "
                "too narrow"
            )
    for line in found:
        log.warning("%s", line)
    return found
