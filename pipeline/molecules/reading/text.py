"""Bytes to text: compression by a file's name, encodings by their byte order mark."""

from __future__ import annotations

import codecs
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import IO

import fsspec
import pyarrow as pa

from pipeline.runtime.errors import InputError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
# The longer ones first: UTF-32's mark begins with UTF-16's.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SAMPLE_BYTES = 256  # by which an encoding is told
LONGEST_LINE = 1 << 24  # characters
# What a file begins with that is no text, whatever its name says.
OTHERS = {
    b"\x1f\x8b": "compressed by gzip (.gz)", b"BZh": "compressed by bzip2 (.bz2)",
    b"\xfd7zXZ": "compressed by xz (.xz)", b"\x28\xb5\x2f\xfd": "compressed by zstd (.zst)",
    b"PK\x03\x04": "a zip archive or a workbook; unpack it, or save it as CSV",
    b"PAR1": "Parquet (.parquet)",
}  # fmt: skip


@contextmanager
def told(name: str) -> Iterator[None]:
    """Turn what a damaged file raises into one line."""
    try:
        yield
    except UnicodeError as error:
        raise InputError(f"{name}: not text as its first bytes say: {error}") from None
    except (pa.ArrowException, OSError, EOFError, KeyError, zlib.error, lzma.LZMAError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"{name}: cannot be read: {reason}") from None


@contextmanager
def opened_bytes(uri: str) -> Iterator[IO[bytes]]:
    """A file's bytes, decompressed if its name says so."""
    how = next((how for end, how in COMPRESSIONS.items() if uri.lower().endswith(end)), None)
    with fsspec.open(uri, "rb", compression=None if how == "zstd" else how) as file:
        if how != "zstd":
            yield file
        else:
            with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream:
                yield stream


@contextmanager
def opened_text(uri: str, newline: str | None = None) -> Iterator[IO[str]]:
    """A file's text. Bytes that are not UTF-8 become lone surrogates; see `clean`.

    Parameters
    ----------
    newline : as `open`'s: None for lines that end in LF, CRLF or CR alike, "" to keep the ends.

    Raises
    ------
    InputError
        If it is no text, or in an encoding that cannot be told.
    """
    with opened_bytes(uri) as file:
        head = file.read(SAMPLE_BYTES)
    other = next((what for mark, what in OTHERS.items() if head.startswith(mark)), None)
    if other is not None:
        raise InputError(f"{uri}: its name says text, but it is {other}")
    encoding = next((name for mark, name in MARKS if head.startswith(mark)), "utf-8")
    if encoding == "utf-8" and _looks_like_utf16(head):
        raise InputError(f"{uri}: looks like UTF-16 without a byte order mark; save it as UTF-8")
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    with opened_bytes(uri) as file:
        yield TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline)


def lines_of(file: IO[str], uri: str) -> Iterator[str]:
    """A text's lines, with their ends.

    Raises
    ------
    InputError
        If one has more than LONGEST_LINE characters: it would fill the memory.
    """
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise InputError(
                f"{uri}: line {number:,} has {LONGEST_LINE:,} characters or more; is this a file "
                "of molecules?"
            )
        yield line


def _looks_like_utf16(head: bytes) -> bool:
    """Whether every other byte of a text is zero, more or less."""
    return len(head) >= 8 and max(head[place::2].count(0) for place in (0, 1)) > len(head) // 3


def clean(text: str) -> str:
    """Text that can be written: U+FFFD in place of what was not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_clean(text: str | None) -> bool:
    """Whether nothing in it was not UTF-8."""
    return text is None or not any("\ud800" <= sign <= "\udfff" for sign in text)
