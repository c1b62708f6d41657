"""Reading data files row by row as written: DrugOOD JSON, CSV, Parquet and SMILES files."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.config import SourceSettings
from pipeline.errors import InputError

SPLITS = ("train", "iid_val", "iid_test", "ood_val", "ood_test")
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


def check_source(settings: SourceSettings) -> None:
    """Tell at once that a data file is missing or of an unknown format, as InputError."""
    _open_filesystem(settings.data_file)
    _reader_for(settings.data_file)


def read_rows(settings: SourceSettings) -> pa.Table:
    """The rows of a data file as written, in the schema RAW; errors as `read_molecules`."""
    name = settings.data_file
    reader = _reader_for(name)
    fs, path = _open_filesystem(name)
    try:
        rows = reader(fs, path, settings)
    except (
        pa.ArrowException,
        OSError,
        EOFError,
        KeyError,
        UnicodeDecodeError,
        zlib.error,
    ) as error:
        raise InputError(f"{name}: cannot be read: {str(error).splitlines()[0]}") from None
    _check_ids(rows, settings)
    unknown = set(pc.unique(rows["split"]).to_pylist()) - {*SPLITS, None}
    if unknown:
        raise InputError(
            f"{name}: unknown split {sorted(unknown)[0]!r}; splits are {', '.join(SPLITS)}"
        )
    return rows


def _read_drugood(fs: fsspec.AbstractFileSystem, path: str, settings: SourceSettings) -> pa.Table:
    with fs.open(path, "rb", compression="infer") as file:
        try:
            content = json.load(file)
        except json.JSONDecodeError as error:
            raise InputError(f"{settings.data_file}: not valid JSON: {error}") from None
    splits = content.get("split") if isinstance(content, dict) else None
    if not isinstance(splits, dict):
        raise InputError(f"{settings.data_file}: no 'split' object; expected DrugOOD's format")
    columns: dict[str, list] = {name: [] for name in RAW.names}
    stem = _stem(path)
    for split, items in splits.items():
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise InputError(f"{settings.data_file}: split {split!r} is not a list of objects")
        columns["id"] += [f"{stem}:{split}:{i}" for i in range(len(items))]
        columns["split"] += [split] * len(items)
        columns["smiles"] += [_text(item.get(settings.smiles_column)) for item in items]
        columns["label"] += [_number(item.get("cls_label")) for item in items]
        columns["domain"] += [_text(item.get("domain_id")) for item in items]
    if columns["smiles"] and not any(columns["smiles"]):
        raise InputError(
            f"{settings.data_file}: no item has {settings.smiles_column!r}; set --smiles_column"
        )
    return _raw(columns)


def _read_csv(fs: fsspec.AbstractFileSystem, path: str, settings: SourceSettings) -> pa.Table:
    malformed: list[tuple[int, str, str]] = []

    def keep_malformed(row: pyarrow.csv.InvalidRow) -> str:
        reason = f"row has {row.actual_columns} columns, expected {row.expected_columns}"
        malformed.append((row.number, row.text, reason))
        return "skip"

    with fs.open(path, "rb", compression="infer") as file:
        if not file.read(1):
            raise InputError(f"{settings.data_file}: the file is empty")
        file.seek(0)
        text_columns = (settings.smiles_column, settings.id_column, settings.domain_column)
        table = pyarrow.csv.read_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\t" if ".tsv" in PurePosixPath(path).suffixes else ",",
                invalid_row_handler=keep_malformed,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in text_columns if name}
            ),
        )
    # pyarrow counts rows from 1 with the header as row 1; ours start at 0 below the header.
    skipped = [number - 2 for number, _, _ in malformed]
    positions = np.setdiff1d(np.arange(table.num_rows + len(skipped)), skipped)
    rows = _from_table(table, settings, positions)
    bad = {
        "id": [f"{_stem(path)}:{number}" for number in skipped],
        "smiles": [text for _, text, _ in malformed],
        "stage": ["read"] * len(malformed),
        "reason": [reason for _, _, reason in malformed],
    }
    return pa.concat_tables([rows, _raw(bad)])


def _read_parquet(fs: fsspec.AbstractFileSystem, path: str, settings: SourceSettings) -> pa.Table:
    table = pq.read_table(path, filesystem=fs)
    return _from_table(table, settings, np.arange(table.num_rows))


def _read_smi(fs: fsspec.AbstractFileSystem, path: str, settings: SourceSettings) -> pa.Table:
    with fs.open(path, "rb", compression="infer") as file:
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    fields = [line.split(maxsplit=1) for line in lines]
    return _raw(
        {
            "id": [f"{_stem(path)}:{i}" for i in range(len(lines))],
            "smiles": [field[0] if field else "" for field in fields],
        }
    )


FORMATS: dict[str, Callable[..., pa.Table]] = {
    ".json": _read_drugood,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".smi": _read_smi,
}


def _reader_for(name: str) -> Callable[..., pa.Table]:
    suffixes = [s for s in PurePosixPath(name).suffixes if s != ".gz"]
    if suffixes and suffixes[-1] in FORMATS:
        return FORMATS[suffixes[-1]]
    fs, path = _open_filesystem(name)
    if fs.isdir(path):
        return _read_parquet
    raise InputError(
        f"{name}: unknown format; a data file ends in {', '.join(FORMATS)} (or one of these "
        "with .gz), or is a folder of Parquet files"
    )


def _open_filesystem(name: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        fs, path = fsspec.url_to_fs(name)
    except (ValueError, ImportError) as error:
        raise InputError(f"{name}: {error}") from None
    if not fs.exists(path):
        raise InputError(f"{name}: no such file")
    return fs, path


def _from_table(table: pa.Table, settings: SourceSettings, positions: np.ndarray) -> pa.Table:
    wanted = {
        "smiles": settings.smiles_column,
        "id": settings.id_column,
        "label": settings.label_column,
        "domain": settings.domain_column,
        "split": settings.split_column,
    }
    columns: dict[str, Any] = {}
    for name, column in wanted.items():
        if column is None:
            continue
        if column not in table.column_names:
            raise InputError(
                f"{settings.data_file}: no column {column!r}; it has "
                f"{', '.join(table.column_names)}. Set --{name}_column"
            )
        if table.column_names.count(column) > 1:
            raise InputError(
                f"{settings.data_file}: column {column!r} occurs "
                f"{table.column_names.count(column)} times; rename all but one"
            )
        try:
            values = table[column].cast(RAW.field(name).type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(f"{settings.data_file}: column {column!r}: {error}") from None
        if name in ("id", "domain", "split"):  # an empty cell of a CSV file is no name
            values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
        columns[name] = values
    if "id" not in columns:
        stem = _stem(settings.data_file)
        columns["id"] = [f"{stem}:{position}" for position in positions]
    return _raw(columns)


def _raw(columns: dict[str, Any]) -> pa.Table:
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


def _check_ids(rows: pa.Table, settings: SourceSettings) -> None:
    if settings.id_column is None:
        return
    where = f"{settings.data_file}: id column {settings.id_column!r}"
    if rows["id"].null_count:
        raise InputError(f"{where} has {rows['id'].null_count} empty ids")
    counts = rows["id"].value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise InputError(
            f"{where} is not unique: {len(repeated)} ids repeat, the first: "
            f"{', '.join(repeated.slice(0, 3).to_pylist())}"
        )


def _stem(path: str) -> str:
    return PurePosixPath(str(path).rstrip("/")).name.split(".")[0]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
