"""Rows of a data file before they are parsed, and how a table's columns become them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.molecules.settings import LibrarySettings
from pipeline.runtime.errors import InputError

RAW = pa.schema(
    [
        ("id", pa.string()),
        ("smiles", pa.string()),
        ("split", pa.string()),
        ("label", pa.float64()),
        ("domain", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
    ]
)


class DataFile(NamedTuple):
    """One file of molecules: path or URI, its format, and what its rows' ids begin with."""

    uri: str
    format: str
    stem: str


def wanted_columns(settings: LibrarySettings) -> dict[str, str | None]:
    """The column that each of RAW's first five columns is read from."""
    return {name: getattr(settings, f"{name}_column", None) for name in RAW.names[:5]}


def require_columns(settings: LibrarySettings, file: DataFile, names: list[str]) -> None:
    """Tell a column that is missing, or there twice, as InputError."""
    for name, column in wanted_columns(settings).items():
        if column is not None and column not in names:
            raise InputError(
                f"{file.uri}: no column {column!r}; it has {', '.join(names)}. Set --{name}_column"
            )
        if column is not None and names.count(column) > 1:
            raise InputError(
                f"{file.uri}: column {column!r} occurs {names.count(column)} times; rename all "
                "but one"
            )


def from_table(
    table: pa.Table, settings: LibrarySettings, file: DataFile, positions: np.ndarray
) -> pa.Table:
    """RAW's columns of a table whose rows stand at some positions of a file."""
    columns: dict[str, Any] = {}
    for name, column in wanted_columns(settings).items():
        if column is None:
            continue
        try:
            columns[name] = _converted(name, table[column])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(f"{file.uri}: column {column!r}: {error}") from None
    if "id" not in columns:
        columns["id"] = [f"{file.stem}:{position}" for position in positions]
    return raw_rows(columns)


def _converted(name: str, values: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column as RAW has it; an empty cell of a CSV file is no name and no label."""
    if pa.types.is_binary(values.type):
        texts = [v if v is None else v.decode(errors="replace") for v in values.to_pylist()]
        return pa.array(texts, pa.string())
    if pa.types.is_string(values.type) and name in ("id", "domain", "split"):
        return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    if pa.types.is_string(values.type) and name == "label":
        lower = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        none = pa.array([text.lower() for text in pyarrow.csv.ConvertOptions().null_values])
        lower = pc.if_else(pc.is_in(lower, none), pa.scalar(None, pa.string()), lower)
        for word, digit in (("true", "1"), ("false", "0")):
            lower = pc.if_else(pc.equal(lower, word), digit, lower)
        return lower.cast(pa.float64())
    return values.cast(RAW.field(name).type)


def raw_rows(columns: dict[str, Any]) -> pa.Table:
    """A table in the schema RAW; columns that are not given are empty."""
    rows = len(columns["id"])
    arrays = []
    for field in RAW:
        values = columns.get(field.name)
        if values is None or len(values) == 0:
            arrays.append(pa.nulls(rows, field.type))
        else:
            chunked = isinstance(values, (pa.ChunkedArray, pa.Array))
            arrays.append(values if chunked else pa.array(values, field.type))
    return pa.table(arrays, schema=RAW)
