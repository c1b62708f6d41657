"""A table's features and classes: of molecules by an encoder, or a column of feature lists."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.generation.class_rows import matrix, read_classed, rejections
from pipeline.generation.settings import ClassedSourceSettings, GenerateSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.text import some

log = logging.getLogger(__name__)

LEAST_ROWS = 20  # of a class


@dataclass(frozen=True)
class Source:
    """Rows with features and a class; what the file holds = rows + rejected + left out.

    Attributes
    ----------
    ids : of each row.
    features : (n, d) float32.
    classes : (n,) the number of each one's class among `names`.
    names : of the classes, sorted.
    rejected : of `REJECTED`.
    rows_in : that the file holds.
    other_splits : rows left out as they are of another split than train.
    notes : what reading guessed.
    described : what the features are, for reports.
    """

    ids: Sequence[str]
    features: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]
    rejected: pa.Table
    rows_in: int
    other_splits: int
    notes: Sequence[str]
    described: str

    @cached_property
    def same(self) -> np.ndarray:
        """A number (n,) from 0 on for each row, the same for rows with equal features."""
        numbers: dict[bytes, int] = {}
        digests = (hashlib.blake2b(row, digest_size=16).digest() for row in self.features)
        return np.array([numbers.setdefault(digest, len(numbers)) for digest in digests])


def read_source(settings: GenerateSettings) -> Source:
    """Read, and for molecules encode, the rows of a data file.

    Raises
    ------
    InputError
        If a column is missing or something else than it must be, a class is too small, or a
        feature is constant or not a number.
    """
    table, rejected, rows_in, notes, described = read_classed(settings)
    other = 0
    if not settings.all_splits:
        is_other = pc.fill_null(pc.not_equal(table["split"], "train"), False)
        other = pc.sum(is_other).as_py() or 0
        table = table.filter(pc.invert(is_other))
        if other:
            log.info(
                "%s: %s rows of other splits than train are left out (--all_splits takes them)",
                settings.data_file, f"{other:,}",
            )  # fmt: skip
    has_class = pc.is_valid(table["class"])
    without = table.filter(pc.invert(has_class)).select(["id", "smiles"])
    table = table.filter(has_class)
    rejected = pa.concat_tables([rejected, rejections(without, "class", "it has no class")])
    labels = np.array(table["class"].to_pylist(), dtype=object)
    names = tuple(sorted(set(labels)))
    _check_classes(Counter(labels.tolist()), settings)
    numbers = {name: number for number, name in enumerate(names)}
    features = matrix(table["features"])
    check_features(features, table["id"].to_pylist(), settings)
    return Source(
        table["id"].to_pylist(), features, np.array([numbers[each] for each in labels]), names,
        rejected, rows_in, other, notes, described,
    )  # fmt: skip


def _check_classes(sizes: Counter[str], settings: GenerateSettings) -> None:
    where = f"{settings.data_file}: "
    if not sizes:
        raise InputError(f"{where}no row has a class; see --class_column and --split_column")
    small = {name: size for name, size in sorted(sizes.items()) if size < LEAST_ROWS}
    if small:
        told = some([f"{name!r} ({size})" for name, size in small.items()])
        raise InputError(
            f"{where}each class needs at least {LEAST_ROWS} rows; too small: {told}. Leave them "
            "out of the file, or put them together"
        )
    for name in settings.classes or ():
        if name not in sizes:
            raise InputError(f"--classes {name}: no such class; there are {some(sorted(sizes))}")


def check_features(
    features: np.ndarray, ids: Sequence[str], settings: ClassedSourceSettings
) -> None:
    """InputError if a feature of rows (n, d) is no number, or nothing can be learned of it."""
    wrong = ~np.isfinite(features).all(axis=1)
    if wrong.any():
        first = ids[int(np.flatnonzero(wrong)[0])]
        raise InputError(
            f"{settings.data_file}: {int(wrong.sum()):,} rows have features that are NaN or "
            f"infinite, the first: {first}; leave them out"
        )
    constant = np.flatnonzero(features.max(axis=0) == features.min(axis=0))
    if not len(constant):
        return
    told = (
        f"{settings.data_file}: {len(constant):,} of {features.shape[1]:,} features are the same "
        f"in every row, the first: number {constant[0]}"
    )
    if len(constant) == features.shape[1] or settings.features_column is not None:
        raise InputError(f"{told}; nothing can be learned of them: leave them out")
    log.warning("%s; samples have about the same value there", told)
