"""Files on any fsspec filesystem: written whole or not at all, and read with their checksums."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import DamagedShard, InputError

log = logging.getLogger(__name__)
T = TypeVar("T")

# What pyarrow raises for bytes that are not what was written.
DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)
IS_DAMAGED = "is damaged"


def absolute(folder: str) -> str:
    """A folder or URI that means the same in every process, without a slash at its end."""
    return (folder if "://" in folder else os.path.abspath(folder)).rstrip("/")


def write_atomically(uri: str, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing, on any fsspec filesystem.

    Locally the bytes go to a hidden file that is then renamed; on an object store one upload
    appears at once by itself.

    Raises
    ------
    InputError
        If the filesystem does not take it; nothing is left of it then.
    """
    try:
        _write(uri, content)
    except OSError as error:
        raise InputError(
            f"cannot write {uri}: {error.strerror or error}; make room or give another folder, "
            "and run again: finished work is kept"
        ) from error


def _write(uri: str, content: bytes) -> None:
    fs, path = fsspec.url_to_fs(uri)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, content)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def remove(uri: str) -> None:
    """Remove a file, or a folder with all in it, if it is there."""
    fs, path = fsspec.url_to_fs(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def parquet_bytes(table: pa.Table, dense: bool = False) -> bytes:
    """A table as the bytes of a Parquet file, with a checksum on each page.

    Parameters
    ----------
    dense : the rows are large and do not compress, so that trying would only cost time.
    """
    sink = BytesIO()
    how = {"compression": "none", "use_dictionary": False} if dense else {}
    pq.write_table(table, sink, write_page_checksum=True, **how)
    return sink.getvalue()


def read_parquet(fs: Any, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file of ours, page checksums verified.

    A damaged file gets the name `path`.damaged: nothing reads it any more, and a run that needs
    what it held makes that anew.

    Parameters
    ----------
    fs : fsspec filesystem.

    Raises
    ------
    DamagedShard
        If a checksum or the format is wrong, or the file has gone.
    """
    try:
        with fs.open(path, "rb") as file:
            return _verified(file, columns)
    except pa.ArrowMemoryError:
        raise
    except FileNotFoundError:  # another process has set it aside
        raise DamagedShard(f"{path} {IS_DAMAGED} or deleted") from None
    except DAMAGE:  # or the network's fault: judge by the bytes
        content = fs.cat_file(path)
    try:
        return _verified(BytesIO(content), columns)
    except DAMAGE as error:
        reason = str(error).splitlines()[0]
    try:
        fs.mv(path, f"{path}.damaged")
    except FileNotFoundError:  # another process was faster
        pass
    except OSError as error:
        told = error.strerror or error
        raise InputError(f"{path} {IS_DAMAGED} ({reason}) and cannot be renamed: {told}") from None
    raise DamagedShard(f"{path} {IS_DAMAGED} ({reason}); it was set aside as {path}.damaged")


def _verified(file: Any, columns: Sequence[str] | None) -> pa.Table:
    table = pq.ParquetFile(file, page_checksum_verification=True).read(columns=columns)
    missing = set(columns or ()) - set(table.column_names)
    if missing:
        raise pa.ArrowInvalid(f"it has no column {missing.pop()}")
    return table


def starting_over(work: Callable[..., T], *arguments: Any) -> T:
    """What a job returns; where it meets a damaged file it starts over, and makes that anew."""
    told = set()
    while True:
        try:
            return work(*arguments)
        except DamagedShard as error:
            damage = str(getattr(error, "cause", error)).splitlines()[0]  # raised by a Ray worker
            if damage in told:
                raise
            told.add(damage)
            log.warning("%s; starting over to make what it held anew", damage)
