"""A file's rows with features and a class: molecules by an encoder, or a column of lists."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.encoding.plan import check_inputs, open_run
from pipeline.encoding.stored_features import encode_molecules
from pipeline.generation.settings import ClassedSourceSettings
from pipeline.molecules.formats import read_rows
from pipeline.molecules.rejected import REJECTED
from pipeline.runtime.errors import InputError, told
from pipeline.runtime.text import some

log = logging.getLogger(__name__)


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
    settings = grouped
    if grouped.class_column is None or grouped.domain_column is not None:
        with told_as("--group_column" if group_column else "--domain_column"):
            notes = check_inputs(grouped)
    if settings.class_column is not None:
        settings = replace(settings, domain_column=settings.class_column)
        with told_as("--class_column"):
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
def told_as(flag: str) -> Iterator[None]:
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
    asked = {"features_column": column, "class_column": settings.class_column,
             "id_column": settings.id_column, "split_column": settings.split_column,
             "group_column": group_column}  # fmt: skip
    table = _read_columns(name, asked)
    _check_lists(table[column], settings)
    ids = [f"row {number}" for number in range(table.num_rows)]
    if settings.id_column is not None:
        ids = [str(value) for value in table[settings.id_column].to_pylist()]

    def texts(flag: str) -> pa.ChunkedArray:
        if asked[flag] is None:
            return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
        return _texts(table[asked[flag]], flag, asked[flag])

    columns = {
        "id": pa.array(ids, pa.string()),
        "smiles": pa.nulls(table.num_rows, pa.string()),
        "split": texts("split_column"),
        "class": texts("class_column"),
        "group": texts("group_column"),
        "features": table[column],
    }
    lengths = pc.list_value_length(table[column])
    width = pc.mode(lengths)[0]["mode"].as_py()
    fits = pc.fill_null(pc.equal(lengths, width), False)
    made = pa.table(columns)
    bad = made.filter(pc.invert(fits)).select(["id", "smiles"])
    rejected = rejections(bad, "features", f"it has no {width} features, as most rows have")
    log.info("%s: %s rows, lists of %s in column %s", name, f"{table.num_rows:,}", width, column)
    return ReadRows(made.filter(fits), rejected, table.num_rows, (), f"column {column}")


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


def _check_lists(column: pa.ChunkedArray, settings: ClassedSourceSettings) -> None:
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


def _texts(column: pa.ChunkedArray, flag: str, name: str) -> pa.ChunkedArray:
    """A column as text; NaN is missing. InputError if it holds lists or structures."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise InputError(f"--{flag} {name}: it holds {column.type}, not names") from None


def rejections(rows: pa.Table, stage: str, reason: str) -> pa.Table:
    """Rows (`id`, `smiles`) as rejected for one reason."""
    count = rows.num_rows
    return pa.table(
        [rows["id"], rows["smiles"], pa.array([stage] * count), pa.array([reason] * count)],
        schema=REJECTED,
    )


def matrix(lists: pa.ChunkedArray) -> np.ndarray:
    """Lists of one length as rows (n, d) float32."""
    lists = lists.combine_chunks()
    flat = lists.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    return flat.reshape(len(lists), -1)
