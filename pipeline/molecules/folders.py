"""The data files that --data_file names: one, or those of a folder and the folders in it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar

import fsspec

from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind
from pipeline.molecules.reading.columns import (
    SAMPLE,
    SHARE,
    SMILES_COLUMN,
    is_smiles,
    named,
    smiles_names,
)
from pipeline.molecules.reading.text import COMPRESSIONS, lines_of, opened_text, told
from pipeline.molecules.settings import LibrarySettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute
from pipeline.runtime.text import some

L = TypeVar("L", bound=LibrarySettings)

TABLES = (".csv", ".tsv", ".txt")
SMILES_FILES = (".smi", ".smiles", ".ism", ".cxsmiles")
SDFS = (".sdf", ".sd")
JSON_LINES = (".jsonl", ".ndjson")
FASTAS = (".fasta", ".fa", ".faa")
# Flags that say nothing of molecules of a kind, and why.
NO_USE = {
    SMILES.name: dict.fromkeys(("residues", "min_length", "max_length"), "it is for sequences"),
    SEQUENCE.name: {
        "smiles_column": "these are sequences",
        "fragments": "sequences are one chain",
        "structures": "it is for an SDF's molecules",
    },
}
SUFFIXES = (*TABLES, *SMILES_FILES, *SDFS, *FASTAS, ".json", *JSON_LINES, ".parquet")


class DataFile(NamedTuple):
    """One file of molecules: path or URI, its format, and what its rows' ids begin with."""

    uri: str
    format: str
    stem: str


def data_files(name: str, column: str | None = None) -> list[DataFile]:
    """The file that --data_file names, or the data files below that folder in order of name.

    See `files_and_skipped`.
    """
    return files_and_skipped(name, column)[0]


def files_and_skipped(name: str, column: str | None = None) -> tuple[list[DataFile], list[str]]:
    """The data files that --data_file names, and what of a folder is skipped.

    These are files whose names tell no format, and texts (.txt) that hold no molecules.

    Hidden files of a folder are left out.

    Parameters
    ----------
    column : --sequence_column; a text whose header has it is a table of sequences.

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
    top, shown = PurePosixPath(path), _shown(fs, path)
    files = [
        file for file in shown
        if (known := format_of(file))
        and (known != ".txt" or _holds_molecules(_uri(fs, file), column))
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


def _shown(fs: fsspec.AbstractFileSystem, folder: str) -> dict[str, PurePosixPath]:
    """The files below a folder in order of name, each with its place there; no hidden ones."""
    top = PurePosixPath(folder)
    every = {file: PurePosixPath(file).relative_to(top) for file in sorted(fs.find(folder))}
    return {
        file: place
        for file, place in every.items()
        if not any(part.startswith(".") for part in place.parts)
    }


def _has_fasta(name: str) -> bool:
    """Whether a file, or any of a folder, is FASTA by its name; nothing is opened."""
    fs, path = _open_filesystem(name)
    names = _shown(fs, path) if fs.isdir(path) else [path]
    return any(format_of(each) in FASTAS for each in names)


def kind_of_source(settings: LibrarySettings) -> Kind:
    """What the data files hold: sequences if they are FASTA or --sequence_column is given.

    A folder is looked into once a run; `check_flags`, with which one begins, looks anew.

    Raises
    ------
    InputError
        If nothing is there, files are of several kinds, or --sequence_column cannot apply.
    """
    column = settings.sequence_column
    if column is not None and settings.smiles_column != SMILES_COLUMN:
        raise InputError("--sequence_column and --smiles_column: a run takes one kind; give one")
    return _kind_of_files(settings.data_file, column)


def check_flags(settings: LibrarySettings) -> None:
    """InputError if a flag is given that says nothing of the source's kind, or as `kind_of_source`.

    The source is looked at anew.
    """
    _kind_of_files.cache_clear()
    for name, why in NO_USE[kind_of_source(settings).name].items():
        value, own = getattr(settings, name), type(settings).__dataclass_fields__[name]
        is_another = own.type != LibrarySettings.__dataclass_fields__[name].type  # as --structures
        if value != own.default and not is_another:
            raise InputError(f"--{name} {value}: {why}; leave it out")


@lru_cache(maxsize=64)
def _kind_of_files(name: str, column: str | None) -> Kind:
    """See `kind_of_source`.

    Parameters
    ----------
    column : --sequence_column.
    """
    if column is None and not _has_fasta(name):
        return SMILES
    files = data_files(name, column)
    fastas = [file for file in files if file.format in FASTAS]
    tables = [file for file in files if file.format not in (*FASTAS, *SMILES_FILES, *SDFS)]
    if column is not None and not tables:
        what = "a FASTA file names no columns" if fastas else "these files hold SMILES"
        raise InputError(f"{name}: --sequence_column cannot apply: {what}")
    taken = fastas if column is None else [*fastas, *tables]
    others = [file for file in files if file not in taken]
    if others:
        mend = "put them into two folders"
        if tables and column is None:
            mend += ", or name the column of the tables' sequences by --sequence_column"
        raise InputError(
            f"{name}: sequences ({taken[0].uri}) and SMILES ({others[0].uri}) in one "
            f"folder, and a run takes one kind: {mend}"
        )
    return SEQUENCE


def of_file(settings: L, name: str, **changes: Any) -> L:
    """The settings that read one of the several sources of a run.

    FASTA files need no --sequence_column, which is for the tables among the sources. Errors as
    `data_files`.

    Parameters
    ----------
    changes : of other settings.
    """
    if settings.sequence_column and all(
        file.format in FASTAS for file in data_files(name, settings.sequence_column)
    ):
        changes["sequence_column"] = None
    return replace(settings, data_file=name, **changes)


def format_of(name: str) -> str | None:
    """The suffix of SUFFIXES that a file's name ends in, compression left away; None without."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def _holds_molecules(uri: str, column: str | None) -> bool:
    """Whether a text's header names a SMILES column, or most of its first lines have a SMILES.

    Parameters
    ----------
    column : of sequences, that may stand in the header instead; None for none.
    """
    with told(uri), opened_text(uri) as file:
        every = (line.strip().replace('"', "") for line in lines_of(file, uri))
        lines = list(islice(filter(None, every), SAMPLE))
    cells = [re.split(r"[\t,;|]| +", line) for line in lines]
    # Not by blanks: a sentence may have the word.
    if cells and column is not None and named(column, re.split(r"[\t,;|]", lines[0])):
        return True
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
