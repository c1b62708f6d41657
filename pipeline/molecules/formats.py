"""Reading data files piece by piece as written: DrugOOD JSON, CSV, Parquet and SMILES files."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.molecules.raw_rows import (
    RAW,
    DataFile,
    from_table,
    raw_rows,
    require_columns,
    wanted_columns,
)
from pipeline.molecules.settings import LibrarySettings, SourceSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute

SPLITS = ("train", "iid_val", "iid_test", "ood_val", "ood_test")
CSV_BLOCK_BYTES = 1 << 24  # read at once; no line may be longer
PIECE_ROWS = 65_536


def data_files(name: str) -> list[DataFile]:
    """The file that --data_file names, or the data files of that folder in order of name.

    Raises
    ------
    InputError
        If nothing is there, or its format is unknown.
    """
    fs, path = _open_filesystem(name)
    known = _format_of(name)
    if not fs.isdir(path):
        if known is None:
            raise InputError(
                f"{name}: unknown format; a data file ends in {', '.join(FORMATS)} (or one of "
                "these with .gz), or is a folder of such files"
            )
        return [DataFile(absolute(name), known, _stem(path))]
    files = sorted(
        entry["name"] for entry in fs.ls(path, detail=True)
        if entry["type"] == "file" and _format_of(entry["name"])
        and not PurePosixPath(entry["name"]).name.startswith(".")
    )  # fmt: skip
    if not files:
        raise InputError(f"{name}: no file in this folder ends in {', '.join(FORMATS)}")
    folder = PurePosixPath(path).name
    return [
        DataFile(fs.unstrip_protocol(f), _format_of(f), f"{folder}/{PurePosixPath(f).name}")
        for f in files
    ]


def check_files(settings: SourceSettings) -> None:
    """Tell a missing data file, or a folder that cannot be written to, before any work is done.

    Raises
    ------
    InputError
        That names the flag to mend.
    """
    data_files(settings.data_file)
    for flag in ("cache_root", "output_dir"):
        folder = getattr(settings, flag, None)
        if folder is None:
            continue
        try:
            fs, path = fsspec.url_to_fs(folder)
            fs.makedirs(path, exist_ok=True)
        except Exception as error:  # each filesystem has errors of its own
            raise InputError(f"--{flag} {folder}: cannot be written to: {error}") from None


def read_rows(settings: LibrarySettings) -> pa.Table:
    """The rows of all data files as written, in the schema RAW.

    Raises
    ------
    InputError
        If the file is missing, empty, unreadable, of an unknown format, or lacks a column; if ids
        repeat, or a split has an unknown name.
    """
    files = data_files(settings.data_file)
    pieces = [piece for file in files for piece in stream_rows(file, settings, PIECE_ROWS)]
    rows = pa.concat_tables([RAW.empty_table(), *pieces])
    if rows.num_rows == 0:
        raise InputError(f"{settings.data_file}: the file has no rows")
    _check_ids(rows, settings)
    return rows


def stream_rows(file: DataFile, settings: LibrarySettings, most: int) -> Iterator[pa.Table]:
    """A file's rows as written, in the schema RAW: tables of `most` rows, the last of the rest.

    Rows keep their order and their number, which is in their id if no column is; only the
    malformed rows of a CSV file come last.

    Raises
    ------
    InputError
        If the file is unreadable, lacks a column, or names an unknown split.
    """
    with _told(file.uri):
        left = RAW.empty_table()
        for piece in FORMATS[file.format](file, settings):
            _check_splits(piece, file.uri)
            left = pa.concat_tables([left, piece])
            while left.num_rows >= most:
                yield left.slice(0, most)
                left = left.slice(most)
        if left.num_rows:
            yield left


def _read_drugood(file: DataFile, settings: LibrarySettings) -> Iterator[pa.Table]:
    with fsspec.open(file.uri, "rb", compression="infer") as opened:
        try:
            content = json.load(opened)
        except json.JSONDecodeError as error:
            raise InputError(f"{file.uri}: not valid JSON: {error}") from None
    splits = content.get("split") if isinstance(content, dict) else None
    if not isinstance(splits, dict):
        raise InputError(f"{file.uri}: no 'split' object; expected DrugOOD's format")
    columns: dict[str, list] = {name: [] for name in RAW.names}
    for split, items in splits.items():
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise InputError(f"{file.uri}: split {split!r} is not a list of objects")
        columns["id"] += [f"{file.stem}:{split}:{i}" for i in range(len(items))]
        columns["split"] += [split] * len(items)
        columns["smiles"] += [_text(item.get(settings.smiles_column)) for item in items]
        columns["label"] += [_number(item.get("cls_label")) for item in items]
        columns["domain"] += [_text(item.get("domain_id")) for item in items]
    if columns["smiles"] and not any(columns["smiles"]):
        raise InputError(f"{file.uri}: no item has {settings.smiles_column!r}; set --smiles_column")
    yield raw_rows(columns)


def _read_csv(file: DataFile, settings: LibrarySettings) -> Iterator[pa.Table]:
    malformed: list[tuple[int, str, str]] = []

    def keep_malformed(row: pyarrow.csv.InvalidRow) -> str:
        reason = f"row has {row.actual_columns} columns, expected {row.expected_columns}"
        malformed.append((row.number, row.text, reason))
        return "skip"

    def blocks(opened: IO[bytes], **convert: Any) -> pyarrow.csv.CSVStreamingReader:
        malformed.clear()
        return pyarrow.csv.open_csv(
            opened,
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\t" if file.format == ".tsv" else ",",
                invalid_row_handler=keep_malformed,
            ),
            convert_options=pyarrow.csv.ConvertOptions(**convert),
        )

    with fsspec.open(file.uri, "rb", compression="infer") as opened:
        if not opened.read(1):
            raise InputError(f"{file.uri}: the file is empty")
        opened.seek(0)
        require_columns(settings, file, blocks(opened).schema.names)
    # Types guessed from the first block need not fit the others, and SMILES need not be UTF-8.
    columns = list(dict.fromkeys(name for name in wanted_columns(settings).values() if name))
    types = {name: pa.string() for name in columns} | {settings.smiles_column: pa.binary()}
    start = 0
    with fsspec.open(file.uri, "rb", compression="infer") as opened:
        for block in blocks(opened, include_columns=columns, column_types=types):
            # pyarrow counts rows from 1 with the header as row 1; ours start at 0 below it. It
            # reads ahead: malformed rows of the next block may be here already.
            skipped = [number - 2 for number, _, _ in malformed]
            positions = np.arange(start, start + block.num_rows + len(skipped))
            positions = np.setdiff1d(positions, skipped)[: block.num_rows]
            yield from_table(pa.table(block), settings, file, positions)
            start = int(positions[-1]) + 1 if len(positions) else start
    if malformed:
        yield raw_rows(
            {
                "id": [f"{file.stem}:{number - 2}" for number, _, _ in malformed],
                "smiles": [text for _, text, _ in malformed],
                "stage": ["read"] * len(malformed),
                "reason": [reason for _, _, reason in malformed],
            }
        )


def _read_parquet(file: DataFile, settings: LibrarySettings) -> Iterator[pa.Table]:
    start = 0
    columns = list(dict.fromkeys(name for name in wanted_columns(settings).values() if name))
    with fsspec.open(file.uri, "rb") as opened:
        reader = pq.ParquetFile(opened)
        require_columns(settings, file, reader.schema_arrow.names)
        for batch in reader.iter_batches(PIECE_ROWS, columns=columns):
            positions = np.arange(start, start + batch.num_rows)
            yield from_table(pa.table(batch), settings, file, positions)
            start += batch.num_rows


def _read_smi(file: DataFile, settings: LibrarySettings) -> Iterator[pa.Table]:
    with fsspec.open(file.uri, "rb", compression="infer") as opened:
        texts: list[str] = []
        start = 0
        for line in opened:
            fields = line.decode("utf-8", errors="replace").split(maxsplit=1)
            texts.append(fields[0] if fields else "")
            if len(texts) == PIECE_ROWS:
                yield _lines(file, texts, start)
                start, texts = start + len(texts), []
        yield _lines(file, texts, start)


def _lines(file: DataFile, texts: list[str], start: int) -> pa.Table:
    ids = [f"{file.stem}:{start + i}" for i in range(len(texts))]
    return raw_rows({"id": ids, "smiles": texts})


FORMATS: dict[str, Callable[[DataFile, LibrarySettings], Iterator[pa.Table]]] = {
    ".json": _read_drugood,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".smi": _read_smi,
}


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn what a damaged file raises into one line."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, KeyError, UnicodeDecodeError, zlib.error) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"{name}: cannot be read: {reason}") from None


def _format_of(name: str) -> str | None:
    suffixes = [s for s in PurePosixPath(name).suffixes if s != ".gz"]
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def _open_filesystem(name: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        fs, path = fsspec.url_to_fs(name)
    except (ValueError, ImportError) as error:
        raise InputError(f"{name}: {error}") from None
    if not fs.exists(path):
        raise InputError(f"{name}: no such file")
    return fs, path


def _check_splits(rows: pa.Table, name: str) -> None:
    unknown = set(pc.unique(rows["split"]).to_pylist()) - {*SPLITS, None}
    if unknown:
        raise InputError(
            f"{name}: unknown split {sorted(unknown)[0]!r}; splits are {', '.join(SPLITS)}"
        )


def _check_ids(rows: pa.Table, settings: LibrarySettings) -> None:
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
