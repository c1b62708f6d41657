"""Rows as text: CSV for programs, aligned columns for readers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


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


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with aligned columns, the header underlined."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in (header, ["-" * width for width in widths], *rows)
    ]
