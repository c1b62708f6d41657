"""Files on any fsspec filesystem: written whole or not at all, and read with their checksums."""

from __future__ import annotations

import errno
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from pipeline.runtime.errors import DamagedFile, InputError, told

log = logging.getLogger(__name__)
T = TypeVar("T")
Chosen = Callable[[Sequence[str]], Sequence[str]]

READ_THREADS = 16
# What pyarrow raises for bytes that are not what was written. Pages have checksums, the footer
# has none: damage there shows as a format that is wrong.
DAMAGE = (pa.ArrowInvalid, pa.ArrowSerializationError, OSError, UnicodeDecodeError)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MOST_STARTS = 100  # a machine that damages what it writes would start over for ever


def absolute(folder: str) -> str:
    """A folder or URI that means the same in every process, without a slash at its end."""
    return (folder if "://" in folder else os.path.abspath(folder)).rstrip("/")


def portable(name: str | None) -> str | None:
    """A local file's path so that it means the same in every process; other names as they are."""
    return os.path.abspath(name) if name and os.path.isfile(name) else name


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
        mend = "make room, or give" if error.errno in NO_ROOM else "give"
        raise InputError(
            f"cannot write {uri}: {error.strerror or error}; {mend} another folder, and run "
            "again: finished work is kept"
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


def read_parquet(
    fs: Any,
    path: str,
    columns: Sequence[str] | Chosen | None = None,
    spoils: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> pa.Table:
    """A Parquet file of ours, page checksums verified.

    A damaged file gets the name `path`.damaged: nothing reads it any more, and a run that needs
    what it held makes that anew.

    Parameters
    ----------
    fs : fsspec filesystem.
    columns : those to read, or what tells them from those that are there; None for all.
    optional : those of `columns` that files of earlier versions lack.
    spoils : files that stand for more than they hold if this one is damaged; removed before.

    Raises
    ------
    DamagedFile
        If a checksum or the format is wrong, or the file has gone.
    InputError
        If the file cannot be read, or not renamed.
    """
    try:
        with fs.open(path, "rb") as file:
            return _verified(file, columns, optional)
    except DAMAGE:  # or the network's fault, or the file has gone: judge by the bytes
        pass
    try:
        content = fs.cat_file(path)
    except FileNotFoundError:  # another process has set it aside
        raise DamagedFile(f"{path} is damaged or deleted") from None
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; run again, or delete it to have what "
            "it held made anew"
        ) from error
    try:
        return _verified(BytesIO(content), columns, optional)
    except DAMAGE as error:
        reason = str(error).splitlines()[0]
    for other in spoils:
        remove(other)
    try:
        fs.mv(path, f"{path}.damaged")
    except FileNotFoundError:  # another process was faster
        pass
    except OSError as error:
        raise InputError(
            f"{path} is damaged ({reason}) and cannot be renamed: {error.strerror or error}; "
            "delete it, and run again"
        ) from None
    raise DamagedFile(f"{path} is damaged ({reason}); it was set aside as {path}.damaged")


def _verified(
    file: Any, columns: Sequence[str] | Chosen | None, optional: Sequence[str]
) -> pa.Table:
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    if callable(columns):
        columns = columns(parquet.schema_arrow.names)
    table = parquet.read(columns=columns)
    missing = set(columns or ()) - set(optional) - set(table.column_names)
    if missing:
        raise pa.ArrowInvalid(f"it has no column {missing.pop()}")
    return table


def read_all(
    paths: Sequence[str], read: Callable[[str], T], threads: int = READ_THREADS
) -> Iterator[T]:
    """What `read` makes of each file, in order, read a few at a time.

    Raises
    ------
    DamagedFile
        In the end, if any file was damaged; by then all that are have been set aside.
    """

    def read_or_damage(path: str) -> T | DamagedFile:
        try:
            return read(path)
        except DamagedFile as damage:
            return damage

    damages = []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), threads):
            for found in pool.map(read_or_damage, paths[start : start + threads]):
                if isinstance(found, DamagedFile):
                    log.warning("%s", found)
                    damages.append(found)
                else:
                    yield found
    if damages:
        others = f" (and {len(damages) - 1} other files)" if damages[1:] else ""
        raise DamagedFile(f"{damages[0]}{others}")


def starting_over(work: Callable[..., T], *arguments: Any) -> T:
    """What a job returns; where it meets damaged files it starts over, and makes them anew.

    Raises
    ------
    DamagedFile
        If the same is damaged again, or it has started over MOST_STARTS times.
    """
    known = set()
    while True:
        try:
            return work(*arguments)
        except DamagedFile as error:
            damage = told(error)
            if damage in known or len(known) == MOST_STARTS:
                raise
            known.add(damage)
            log.warning("%s; starting over to make what it held anew", damage)


def result_or_error(work: Callable[..., T], *arguments: Any) -> T | Exception:
    """What work returns, or what it raises if others shall go on, whatever that is.

    Raises
    ------
    DamagedFile
        Whoever called starts over.
    """
    try:
        return work(*arguments)
    except DamagedFile:
        raise
    except Exception as error:
        return error


def read_record(uri: str, kind: type[T], writer: str, advice: str) -> T | None:
    """A record that was kept as JSON; None if there is none, or it is something else.

    Parameters
    ----------
    writer, advice : what writes such records, and what to do about another, for the warning.
    """
    fs, path = fsspec.url_to_fs(uri)
    try:
        return kind(**json.loads(fs.cat_file(path)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        log.warning("%s is not what %s writes (%s); %s", path, writer, error, advice)
        return None


def read_json(uri: str) -> Any | None:
    """The content of a JSON file; None if there is no such file."""
    fs, path = fsspec.url_to_fs(uri)
    return json.loads(fs.cat_file(path)) if fs.exists(path) else None


def json_bytes(content: dict[str, Any]) -> bytes:
    """Indented JSON as bytes."""
    return json.dumps(content, indent=2).encode() + b"\n"
