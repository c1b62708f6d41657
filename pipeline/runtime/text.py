"""Text: rows as CSV for programs and as aligned columns for readers; hashes of texts."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def csv_bytes(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    """A CSV file with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def records_csv(
    records: Sequence[Mapping[str, Any]], label: Mapping[str, Any] | None = None
) -> bytes:
    """A CSV file of records, each followed by the values of a label.

    Parameters
    ----------
    records : at least one; the last names the columns, which stay empty where another lacks them.
    """
    header, label = list(records[-1]), dict(label or {})
    rows = ([*(record.get(name, "") for name in header), *label.values()] for record in records)
    return csv_bytes([*header, *label], rows)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shortened(text: str, most: int = 30) -> str:
    """A long id without its middle: data sets tell rows apart at the end, sources in front."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[head + 1 - most :]}"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with aligned columns, the header underlined."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in (header, ["-" * width for width in widths], *rows)
    ]


def hashes_of(texts: Iterable[str]) -> np.ndarray:
    """Hashes of 64 bits: (n,) uint64."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype="<u8")
