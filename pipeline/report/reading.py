"""Files of an output folder, at a path or URI: read, never changed or set aside."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.molecules.kinds import KINDS, Kind, kind_of_columns, names_for, unnamed
from pipeline.runtime.errors import InputError, told


class Folder:
    """An output folder.

    Attributes
    ----------
    uri : without a slash at its end.
    place : within the folder that the page is of; "" for that itself.
    """

    def __init__(self, uri: str, place: str = ""):
        self.uri, self.place = uri.rstrip("/"), place
        self.fs, self.path = fsspec.url_to_fs(self.uri)

    def has(self, name: str) -> bool:
        """Whether a file or folder is there."""
        return self.fs.exists(f"{self.path}/{name}")

    def names(self) -> list[str]:
        """What lies in it, hidden files left out, in order; empty if it is no folder."""
        if not self.fs.isdir(self.path):
            return []
        found = (path.rstrip("/").rsplit("/", 1)[-1] for path in self.fs.ls(self.path, False))
        return sorted(name for name in found if not name.startswith("."))

    def folders(self) -> list[str]:
        """Those of `names` that are folders."""
        return [name for name in self.names() if self.fs.isdir(f"{self.path}/{name}")]

    def below(self, name: str) -> Folder:
        """A folder in it."""
        return Folder(f"{self.uri}/{name}", f"{self.place}/{name}".lstrip("/"))

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file's content; empty without the file.

        Raises
        ------
        InputError
            If it is no JSON object.
        """
        if not self.has(name):
            return {}
        try:
            content = json.loads(self.fs.cat_file(f"{self.path}/{name}"))
        except ValueError as error:
            raise InputError(f"{self.uri}/{name} is no JSON: {error}") from None
        if not isinstance(content, dict):
            raise InputError(f"{self.uri}/{name} is no JSON object")
        return content

    def records(self, name: str) -> list[dict[str, str]]:
        """A CSV file's rows; empty without the file."""
        if not self.has(name):
            return []
        text = self.fs.cat_file(f"{self.path}/{name}").decode()
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def columns(self, name: str) -> pa.Table:
        """A CSV file as a table; `id`, `smiles` (or `sequence`) and `domain` stay text."""
        import pyarrow.csv

        text = dict.fromkeys(("id", *KINDS, "domain"), pa.string())
        with self.fs.open(f"{self.path}/{name}", "rb") as file:
            return pyarrow.csv.read_csv(
                file,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(column_types=text),
            )

    def parquet(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Columns of a Parquet file by their names within the flow, as far as it has them.

        Raises
        ------
        InputError
            If it is damaged.
        """
        return read_parquet(self.fs, f"{self.path}/{name}", columns)


def reason(error: BaseException) -> str:
    """Why a part of the page cannot be made."""
    if isinstance(error, KeyError):
        return f"its files lack {error.args[0]}, as of another version"
    return told(error)


def read_parquet(fs: Any, path: str, columns: list[str] | None = None) -> pa.Table:
    """As `Folder.parquet`. `files.read_parquet` would set a damaged file aside."""
    try:
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            there = parquet.schema_arrow.names
            named = None if columns is None else names_for(columns, kind_of_columns(there))
            wanted = None if named is None else [name for name in named if name in there]
            return unnamed(parquet.read(columns=wanted))
    except (pa.ArrowInvalid, pa.ArrowSerializationError, OSError) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def rows_of(fs: Any, path: str) -> tuple[int, Kind]:
    """Rows of a Parquet file of molecules, and of what kind these are, by its footer."""
    try:
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            return parquet.metadata.num_rows, kind_of_columns(parquet.schema_arrow.names)
    except (pa.ArrowInvalid, pa.ArrowSerializationError, OSError) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
