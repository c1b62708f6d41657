"""A table's features and classes: of molecules by an encoder, or a column of feature lists."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.encoding.plan import check_inputs, open_run
from pipeline.encoding.stored_features import encode_molecules
from pipeline.generation.settings import GenerateSettings
from pipeline.molecules.rejected import REJECTED
from pipeline.runtime.errors import InputError, told
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
    read = _of_molecules if settings.features_column is None else _of_a_column
    table, rejected, rows_in, notes, described = read(settings)
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
    rejected = pa.concat_tables([rejected, _rejections(without, "class", "it has no class")])
    labels = np.array(table["class"].to_pylist(), dtype=object)
    names = tuple(sorted(set(labels)))
    _check_classes(Counter(labels.tolist()), settings)
    numbers = {name: number for number, name in enumerate(names)}
    features = _matrix(table["features"])
    _check_features(features, table["id"].to_pylist(), settings)
    return Source(
        table["id"].to_pylist(), features, np.array([numbers[each] for each in labels]), names,
        rejected, rows_in, other, notes, described,
    )  # fmt: skip


def _matrix(lists: pa.ChunkedArray) -> np.ndarray:
    """Lists of one length as rows (n, d) float32."""
    lists = lists.combine_chunks()
    flat = lists.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    return flat.reshape(len(lists), -1)


Read = tuple[pa.Table, pa.Table, int, Sequence[str], str]


def _of_molecules(settings: GenerateSettings) -> Read:
    """`id`, `smiles`, `split`, `class`, `features` of molecules; the class is read as a domain."""
    if settings.class_column is not None:
        settings = replace(settings, domain_column=settings.class_column)
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
        "features": pa.FixedSizeListArray.from_arrays(features.ravel(), features.shape[1]),
    }
    label = encoded.result.label
    described = f"{label['encoder']} (weights: {label['weights']})"
    return pa.table(columns), encoded.rejected, source.rows, source.notes, described


def _of_a_column(settings: GenerateSettings) -> Read:
    """As `_of_molecules`, of a Parquet file with a column of lists of numbers."""
    name, column = settings.data_file, settings.features_column
    if settings.class_column is None:
        raise InputError("--features_column needs --class_column, the column that has the class")
    asked = {"features_column": column, "class_column": settings.class_column,
             "id_column": settings.id_column, "split_column": settings.split_column}  # fmt: skip
    table = _read_columns(name, asked)
    _check_lists(table[column], settings)
    ids = [f"row {number}" for number in range(table.num_rows)]
    if settings.id_column is not None:
        ids = [str(value) for value in table[settings.id_column].to_pylist()]
    columns = {
        "id": pa.array(ids, pa.string()),
        "smiles": pa.nulls(table.num_rows, pa.string()),
        "split": pa.nulls(table.num_rows, pa.string())
        if settings.split_column is None
        else _texts(table[settings.split_column], "split_column", settings),
        "class": _texts(table[settings.class_column], "class_column", settings),
        "features": table[column],
    }
    lengths = pc.list_value_length(table[column])
    width = pc.mode(lengths)[0]["mode"].as_py()
    fits = pc.fill_null(pc.equal(lengths, width), False)
    made = pa.table(columns)
    bad = made.filter(pc.invert(fits)).select(["id", "smiles"])
    rejected = _rejections(bad, "features", f"it has no {width} features, as most rows have")
    log.info("%s: %s rows, lists of %s in column %s", name, f"{table.num_rows:,}", width, column)
    return made.filter(fits), rejected, table.num_rows, (), f"column {column}"


def _read_columns(name: str, asked: Mapping[str, str | None]) -> pa.Table:
    """Columns of a Parquet file. InputError if it is none, or lacks one (by its flag)."""
    try:
        fs, path = fsspec.url_to_fs(name)
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            has = parquet.schema_arrow.names
            for flag, column in asked.items():
                if column is not None and column not in has:
                    raise InputError(
                        f"--{flag} {column}: {name} has no such column; it has {some(has, 12)}"
                    )
            return parquet.read([column for column in asked.values() if column is not None])
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"--data_file {name}: not a Parquet file: {told(error)}") from None


def _check_lists(column: pa.ChunkedArray, settings: GenerateSettings) -> None:
    kind, flag = column.type, f"--features_column {settings.features_column}"
    is_list = any(
        test(kind)
        for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )
    numeric = is_list and (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    )
    if not numeric:
        raise InputError(f"{flag}: it holds {kind}, not lists of numbers")
    if column.null_count == len(column):
        raise InputError(f"{flag}: {settings.data_file} has no rows with features")


def _texts(column: pa.ChunkedArray, flag: str, settings: GenerateSettings) -> pa.ChunkedArray:
    """A column as text; NaN is missing. InputError if it holds lists or structures."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        name = getattr(settings, flag)
        raise InputError(f"--{flag} {name}: it holds {column.type}, not classes") from None


def _rejections(rows: pa.Table, stage: str, reason: str) -> pa.Table:
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


def _check_features(features: np.ndarray, ids: Sequence[str], settings: GenerateSettings) -> None:
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
