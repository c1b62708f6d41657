"""Rows of a data file before they are parsed, and how its columns become them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.reading.content import STRUCTURE_COLUMNS, Piece, Values
from pipeline.molecules.reading.missing import MISSING
from pipeline.molecules.reading.text import clean
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
# Besides, with --structures file: atomic numbers, coordinates (3N,) in Å, "3d" or "2d", and how
# many hydrogens the structure leaves out.
STRUCTURES = pa.schema(
    [
        ("atoms", pa.list_(pa.uint8())),
        ("coords", pa.list_(pa.float32())),
        ("kind", pa.string()),
        ("hydrogens_left_out", pa.int64()),
    ]
)
# DrugOOD's splits, and those that others write for them.
SPLITS = ("train", "iid_val", "iid_test", "ood_val", "ood_test")
OTHER_SPLITS = {
    "training": "train", "val": "iid_val", "valid": "iid_val", "validation": "iid_val",
    "test": "iid_test",
}  # fmt: skip
TRUTH = {"true": "1", "false": "0"}
SHOWN = 3  # values in a message


def raw_piece(piece: Piece, chosen: dict[str, str], name: str) -> pa.Table:
    """Rows in the schema RAW, in the file's order; an id that the file does not give is null.

    With the columns STRUCTURES, if the piece has STRUCTURE_COLUMNS.

    Parameters
    ----------
    chosen : the piece's column for each of RAW's.
    name : of the file, for messages.

    Raises
    ------
    InputError
        If a value cannot be what its column is.
    """
    columns: dict[str, Any] = {}
    for role, column in chosen.items():
        where = f"{name}: column {column!r}"
        values = _strings(piece.columns[column], role, where, piece.positions)
        columns[role] = _converted(role, values, where)
    schema = RAW
    if STRUCTURE_COLUMNS[0] in piece.columns:
        schema = pa.schema([*RAW, *STRUCTURES])
        columns |= dict(zip(STRUCTURES.names, map(piece.columns.get, STRUCTURE_COLUMNS)))
    rows = raw_rows(columns, len(piece.positions), schema)
    if not piece.refused:
        return rows
    refused = raw_rows(
        {
            "smiles": [row.text for row in piece.refused],
            "stage": ["read"] * len(piece.refused),
            "reason": [row.reason for row in piece.refused],
        },
        len(piece.refused), schema,
    )  # fmt: skip
    places = [*piece.positions, *(row.position for row in piece.refused)]
    return pa.concat_tables([rows, refused]).take(np.argsort(places, kind="stable"))


def raw_rows(columns: dict[str, Any], rows: int, schema: pa.Schema) -> pa.Table:
    """A table in a schema; columns that are not given are empty."""
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        chunked = isinstance(values, (pa.ChunkedArray, pa.Array))
        if values is None:
            arrays.append(pa.nulls(rows, field.type))
        else:
            arrays.append(values if chunked else pa.array(values, field.type))
    return pa.table(arrays, schema=schema)


def _strings(values: Values, role: str, where: str, positions: np.ndarray) -> Any:
    """Text as Arrow's strings; of SMILES, what is not UTF-8 as U+FFFD, which no molecule has."""
    if isinstance(values, list):
        try:
            return pa.array(values, pa.string())
        except UnicodeEncodeError:
            bad = [place for place, value in zip(positions, values) if value != _or_none(value)]
            if role != "smiles":
                raise InputError(
                    f"{where} is not UTF-8 in {len(bad):,} or more rows, the first row "
                    f"{bad[0] + 1:,}; save the file as UTF-8"
                ) from None
            return pa.array(map(_or_none, values), pa.string())
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        texts = [v if v is None else v.decode(errors="surrogateescape") for v in values.to_pylist()]
        return _strings(texts, role, where, positions)
    kinds = (pa.types.is_large_string, pa.types.is_string_view)
    return values.cast(pa.string()) if any(kind(values.type) for kind in kinds) else values


def _or_none(value: str | None) -> str | None:
    return value if value is None else clean(value)


def _converted(role: str, values: Any, where: str) -> pa.ChunkedArray | pa.Array:
    """A column as RAW has it; an empty cell is no name and no label."""
    try:
        if role == "label":
            text = pa.types.is_string(values.type)
            return _labels(values, where) if text else values.cast(pa.float64())
        if pa.types.is_floating(values.type):
            values = _whole_as_integers(values)
        values = values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{where}: {error}") from None
    if role == "smiles":
        return values
    values = pc.utf8_trim_whitespace(values)
    values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    return _splits(values, where) if role == "split" else values


def _labels(values: Any, where: str) -> Any:
    """Numbers; true and false are 1 and 0; NA, nan and the like are none."""
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(values))
    lower = pc.if_else(pc.is_in(lower, pa.array(MISSING)), pa.scalar(None, pa.string()), lower)
    for word, digit in TRUTH.items():
        lower = pc.if_else(pc.equal(lower, word), digit, lower)
    try:
        made = lower.cast(pa.float64())
        if pc.all(pc.is_finite(made), min_count=0).as_py():
            return made
    except pa.ArrowInvalid:
        pass
    bad = [
        text.strip()
        for text, cell in zip(values.to_pylist(), lower.to_pylist())
        if cell is not None and not _is_number(cell)
    ]
    if not bad:  # Python reads more spellings of numbers than Arrow
        return pa.array([None if t is None else float(t) for t in lower.to_pylist()], pa.float64())
    bounds = all(text[0] in "<>≤≥~=" and _is_number(text.lstrip("<>≤≥~= ")) for text in bad)
    mend = (
        "they are bounds and no values: leave these rows out, or write a number for each"
        if bounds
        else "a label is a number, true or false; write one, or leave the cell empty"
    )
    told = ", ".join(map(repr, list(dict.fromkeys(bad))[:SHOWN]))
    raise InputError(f"{where}: {len(bad):,} or more labels are no numbers, such as {told}; {mend}")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _whole_as_integers(values: Any) -> Any:
    """Numbers that stand for names: pandas writes integers beside a missing one as 7.0."""
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    whole = pc.all(pc.equal(values, pc.floor(values)), min_count=0).as_py()
    return values.cast(pa.int64()) if whole else values


def _splits(values: Any, where: str) -> Any:
    known = {**{name: name for name in SPLITS}, **OTHER_SPLITS}
    found = [value for value in pc.unique(values).to_pylist() if value is not None]
    unknown = sorted(value for value in found if value.casefold() not in known)
    if unknown:
        raise InputError(
            f"{where}: unknown split {unknown[0]!r}; splits are {', '.join(SPLITS)}; "
            f"{', '.join(OTHER_SPLITS)} are read as the first three"
        )
    return pa.array(
        [None if v is None else known[v.casefold()] for v in values.to_pylist()], pa.string()
    )
