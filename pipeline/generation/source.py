"""A table's features and classes: of molecules by an encoder, or a column of feature lists."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.encoding.plan import check_inputs, open_run
from pipeline.encoding.stored_features import encode_molecules
from pipeline.generation.settings import ClassedSourceSettings, GenerateSettings
from pipeline.molecules.formats import read_rows
from pipeline.molecules.rejected import REJECTED
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
    features = np.stack(table["features"].to_numpy(zero_copy_only=False)).astype(np.float32)
    check_features(features, table["id"].to_pylist(), settings)
    return Source(
        table["id"].to_pylist(), features, np.array([numbers[each] for each in labels]), names,
        rejected, rows_in, other, notes, described,
    )  # fmt: skip


class ReadRows(NamedTuple):
    """What a file holds, before anything is asked of classes and splits.

    Attributes
    ----------
    table : `id`, `smiles` (null of what is no molecule), `split`, `class`, `group`, `features`.
    rejected : of `REJECTED`.
    rows_in : that the file holds.
    notes : what reading guessed.
    described : what the features are, for reports.
    """

    table: pa.Table
    rejected: pa.Table
    rows_in: int
    notes: Sequence[str]
    described: str


def read_classed(settings: ClassedSourceSettings, group_column: str | None = None) -> ReadRows:
    """Read, and for molecules encode, a file's rows with their class.

    Parameters
    ----------
    group_column : column with what rows have in common; None: the domain of molecules, and nothing
        of other rows.

    Raises
    ------
    InputError
        If a column is missing, or holds something else than it must.
    """
    if settings.features_column is None:
        return _of_molecules(settings, group_column)
    return _of_a_column(settings, group_column)


def _of_molecules(settings: ClassedSourceSettings, group_column: str | None) -> ReadRows:
    """Rows that are molecules; the class is read as a domain, as it may be a text."""
    grouped = replace(settings, domain_column=group_column or settings.domain_column)
    with _told_as("--group_column" if group_column else "--domain_column"):
        notes = check_inputs(grouped)
    settings = grouped
    if settings.class_column is not None:
        settings = replace(settings, domain_column=settings.class_column)
        with _told_as("--class_column"):
            notes = check_inputs(settings)
    plan, source = open_run(settings, notes)
    encoded = encode_molecules(source.molecules, source, plan)
    table = encoded.molecules
    if settings.class_column is not None:
        classes = table["domain"]
    elif table["label"].null_count < table.num_rows:
        labels = (None if v is None or v != v else f"{v:g}" for v in table["label"].to_pylist())
        classes = pa.array(labels, pa.string())
    else:
        raise InputError(
            f"{settings.data_file} has no labels to be classes; name the column that has the class "
            "by --class_column"
        )
    features = encoded.result.features.read_features(table["key"].to_pylist())
    columns = {
        **{name: table[name] for name in ("id", "smiles", "split")},
        "class": classes,
        "group": table["domain"] if settings is grouped else _groups(table["id"], grouped),
        "features": pa.FixedSizeListArray.from_arrays(features.ravel(), features.shape[1]),
    }
    label = encoded.result.label
    described = f"{label['encoder']} (weights: {label['weights']})"
    return ReadRows(pa.table(columns), encoded.rejected, source.rows, source.notes, described)


@contextmanager
def _told_as(flag: str) -> Iterator[None]:
    """A fault of what is read as a domain, told by the flag that names it."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace("--domain_column", flag)) from None


def _groups(ids: pa.ChunkedArray, grouped: ClassedSourceSettings) -> pa.ChunkedArray:
    """The group of each molecule, read anew: a row has one domain, which is its class."""
    rows = read_rows(grouped)  # ids are unique
    return rows["domain"].take(pc.index_in(ids, rows["id"].combine_chunks()))


def _of_a_column(settings: ClassedSourceSettings, group_column: str | None) -> ReadRows:
    """As `_of_molecules`, of a Parquet file with a column of lists of numbers."""
    name, column = settings.data_file, settings.features_column
    if settings.class_column is None:
        raise InputError("--features_column needs --class_column, the column that has the class")
    try:
        fs, path = fsspec.url_to_fs(name)
        table = pq.read_table(io.BytesIO(fs.cat_file(path)))
    except (OSError, ValueError) as error:
        raise InputError(f"--data_file {name}: not a Parquet file: {error}") from None
    asked = {"features_column": column, "class_column": settings.class_column,
             "id_column": settings.id_column, "split_column": settings.split_column,
             "group_column": group_column}  # fmt: skip
    for flag, asked_for in asked.items():
        if asked_for is not None and asked_for not in table.column_names:
            raise InputError(
                f"--{flag} {asked_for}: {name} has no such column; it has "
                f"{some(table.column_names, 12)}"
            )
    ids = [f"row {number}" for number in range(table.num_rows)]
    if settings.id_column is not None:
        ids = [str(value) for value in table[settings.id_column].to_pylist()]

    def texts(name: str | None) -> Any:
        if name is None:
            return pa.nulls(table.num_rows, pa.string())
        return table[name].cast(pa.string())

    columns = {
        "id": pa.array(ids, pa.string()),
        "smiles": texts(None),
        "split": texts(settings.split_column),
        "class": texts(settings.class_column),
        "group": texts(group_column),
        "features": table[column],
    }
    kind = table[column].type
    if not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
            or pa.types.is_large_list(kind)):  # fmt: skip
        raise InputError(f"--features_column {column}: it holds {kind}, not lists of numbers")
    lengths = pc.list_value_length(table[column])
    width = pc.mode(lengths)[0]["mode"].as_py()
    fits = pc.fill_null(pc.equal(lengths, width), False)
    made = pa.table(columns)
    bad = made.filter(pc.invert(fits)).select(["id", "smiles"])
    rejected = rejections(bad, "features", f"it has no {width} features, as most rows have")
    log.info("%s: %s rows, lists of %s in column %s", name, f"{table.num_rows:,}", width, column)
    return ReadRows(made.filter(fits), rejected, table.num_rows, (), f"column {column}")


def rejections(rows: pa.Table, stage: str, reason: str) -> pa.Table:
    """Rows (`id`, `smiles`) as rejected for one reason."""
    count = rows.num_rows
    return pa.table(
        [rows["id"], rows["smiles"], pa.array([stage] * count), pa.array([reason] * count)],
        schema=REJECTED,
    )


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
