"""The data files that --data_file names: one, or those of a folder and the folders in it."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple

import fsspec

from pipeline.molecules.columns import SAMPLE, SHARE, is_smiles, smiles_names
from pipeline.molecules.reading.text import COMPRESSIONS, lines_of, opened_text, told
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute
from pipeline.runtime.text import some

TABLES = (".csv", ".tsv", ".txt")
SMILES_FILES = (".smi", ".smiles", ".ism", ".cxsmiles")
SDFS = (".sdf", ".sd")
JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*TABLES, *SMILES_FILES, *SDFS, ".json", *JSON_LINES, ".parquet")


class DataFile(NamedTuple):
    """One file of molecules: path or URI, its format, and what its rows' ids begin with."""

    uri: str
    format: str
    stem: str


def data_files(name: str) -> list[DataFile]:
    """The file that --data_file names, or the data files below that folder in order of name.

    See `files_and_skipped`.
    """
    return files_and_skipped(name)[0]


def files_and_skipped(name: str) -> tuple[list[DataFile], list[str]]:
    """The data files that --data_file names, and what of a folder is skipped.

    These are files whose names tell no format, and texts (.txt) that hold no SMILES.

    Hidden files of a folder are left out.

    Raises
    ------
    InputError
        If nothing is there, or its format is unknown.
    """
    fs, path = _open_filesystem(name)
    known = format_of(name)
    if not fs.isdir(path):
        if known is None:
            raise InputError(
                f"{name}: unknown format; a data file ends in {', '.join(SUFFIXES)}, or one of "
                f"these with {', '.join(COMPRESSIONS)}, or is a folder of such files"
            )
        return [DataFile(absolute(name), known, PurePosixPath(path).name.split(".")[0])], []
    top = PurePosixPath(path)
    every = {file: PurePosixPath(file).relative_to(top) for file in sorted(fs.find(path))}
    shown = {
        file: place
        for file, place in every.items()
        if not any(part.startswith(".") for part in place.parts)
    }
    files = [
        file for file in shown
        if (known := format_of(file)) and (known != ".txt" or _holds_smiles(_uri(fs, file)))
    ]  # fmt: skip
    taken = set(files)
    skipped = [str(place) for file, place in shown.items() if file not in taken]
    if not files:
        seen = f"; it has {some(skipped)}" if skipped else ""
        raise InputError(f"{name}: no file in this folder ends in {', '.join(SUFFIXES)}{seen}")
    found = [
        DataFile(_uri(fs, file), format_of(file), f"{top.name}/{shown[file]}") for file in files
    ]
    return found, skipped


def format_of(name: str) -> str | None:
    """The suffix of SUFFIXES that a file's name ends in, compression left away; None without."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def _holds_smiles(uri: str) -> bool:
    """Whether a text's header names a SMILES column, or most of its first lines have a SMILES."""
    with told(uri), opened_text(uri) as file:
        lines = (line.strip().replace('"', "") for line in lines_of(file, uri))
        cells = [re.split(r"[\t,;|]| +", line) for line in islice(filter(None, lines), SAMPLE)]
    if not cells or smiles_names(cells[0]):
        return bool(cells)
    found = [any(map(is_smiles, row)) for row in cells[1:] or cells]  # the first may be a header
    return sum(found) >= SHARE * len(found)


def _uri(fs: fsspec.AbstractFileSystem, file: str) -> str:
    return fs.unstrip_protocol(file)


def _open_filesystem(name: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        fs, path = fsspec.url_to_fs(name)
    except (ValueError, ImportError) as error:
        raise InputError(f"{name}: {error}") from None
    if not fs.exists(path):
        raise InputError(f"{name}: no such file")
    return fs, path.rstrip("/")
