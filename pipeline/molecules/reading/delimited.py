"""Tables as text: CSV by Python's csv, strictly; TSV, where a quotation mark may be literal.

Cells in quotes may hold delimiters and line ends; no row depends on how much is read at once.
"""

from __future__ import annotations

import csv
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from itertools import islice
from typing import NamedTuple

from pipeline.molecules.reading.content import HEAD_ROWS, Content, Piece, Refused, collected
from pipeline.molecules.reading.text import clean, is_clean, lines_of, opened_text
from pipeline.runtime.errors import InputError

log = logging.getLogger(__name__)

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SAMPLE_CHARACTERS = 1 << 18  # by which a delimiter is told
LARGEST_CELL = 1 << 24  # characters; a mark that is never closed shall not fill the memory
TSV_LINES = 10_000  # that a quoted cell of a TSV file may span
csv.field_size_limit(LARGEST_CELL)

Row = list[str]


class Layout(NamedTuple):
    """How a table is written: its delimiter and names, and which are SMILES without a header."""

    delimiter: str
    names: list[str]
    smiles: int | None = None


def open_delimited(
    uri: str,
    usual_delimiter: str,
    smiles_of: Callable[[Sequence[str]], str | None],
    smiles_place: Callable[[Sequence[Sequence[str]]], int | None],
) -> Content:
    """A table whose delimiter and header are told by its first rows.

    Parameters
    ----------
    smiles_of : the SMILES column's name in a row of cells, None if they are no header.
    smiles_place : the column that is the SMILES' in rows without a header, None if they have one.

    Raises
    ------
    InputError
        If the file is empty, or a quotation mark in it is not closed.
    """
    layout = _layout(uri, usual_delimiter, smiles_of, smiles_place)
    names, first = layout.names, int(layout.smiles is None)
    notes = []
    if layout.delimiter != usual_delimiter:
        notes.append(f"cells are separated by {DELIMITERS[layout.delimiter]}")
    if not first:
        notes.append(
            f"it has no header: columns are named {names[0]} to {names[-1]}, molecules are in "
            f"{names[layout.smiles]}"
        )

    def pieces(columns: Sequence[str]) -> Iterator[Piece]:
        with opened_text(uri, newline="") as file:
            rows = _rows(lines_of(file, uri), layout.delimiter, uri)
            for _ in range(first):
                next(rows, None)
            yield from collected(_chosen(rows, layout, columns), columns)

    what = "a table" if first else "a table without a header"
    usual = {} if first else {"smiles": names[layout.smiles]}
    return Content(f"{what}, {DELIMITERS[layout.delimiter]} between cells", names, pieces,
                   usual, notes=notes)  # fmt: skip


def _chosen(
    rows: Iterator[Row], layout: Layout, columns: Sequence[str]
) -> Iterator[tuple[list[str], int] | Refused]:
    wanted, width = [layout.names.index(name) for name in columns], len(layout.names)
    for position, cells in enumerate(filter(None, rows)):
        if len(cells) == width:
            yield [cells[i] for i in wanted], position
        else:
            text = clean(layout.delimiter.join(cells))
            yield Refused(position, text, f"row has {len(cells)} columns, expected {width}")


def _layout(
    uri: str,
    usual: str,
    smiles_of: Callable[[Sequence[str]], str | None],
    smiles_place: Callable[[Sequence[Sequence[str]]], int | None],
) -> Layout:
    heads = _heads(uri, usual)
    for delimiter, rows in heads.items():
        if rows and smiles_of(rows[0]):
            return Layout(delimiter, _names(rows[0], uri))
    for delimiter, rows in heads.items():
        alike = all(len(row) == len(rows[0]) for row in rows)
        place = smiles_place(rows) if rows and (alike or delimiter == usual) else None
        if place is not None:
            return Layout(delimiter, [f"column_{i + 1}" for i in range(len(rows[0]))], place)
    return Layout(usual, _names(heads[usual][0], uri))


def _heads(uri: str, usual: str) -> dict[str, list[list[str]]]:
    """The first rows by each delimiter, by the usual one first."""
    size = SAMPLE_CHARACTERS
    while True:
        with opened_text(uri, newline="") as file:
            sample = file.read(size)
        if not sample:
            raise InputError(f"{uri}: the file is empty")
        heads, cut = {}, len(sample) == size
        for delimiter in sorted(DELIMITERS, key=lambda each: each != usual):
            try:
                rows = _rows(StringIO(sample, newline=""), delimiter, uri, cut)
                heads[delimiter] = [cells for cells in islice(rows, HEAD_ROWS) if cells]
            except InputError:  # told when the rows are read, by the delimiter that is taken
                heads[delimiter] = _first_line(sample, delimiter)
        if heads[usual]:
            return heads
        if not cut or size >= LARGEST_CELL:
            raise InputError(f"{uri}: the file has no rows")
        size *= 4  # its first row is longer


def _first_line(sample: str, delimiter: str) -> list[list[str]]:
    return [next(iter(StringIO(sample))).strip().split(delimiter)]


def _names(cells: Sequence[str], uri: str) -> list[str]:
    if not all(map(is_clean, cells)):
        raise InputError(f"{uri}: its first line is not UTF-8; save the file as UTF-8")
    return [cell.strip() for cell in cells]


def _rows(lines: Iterable[str], delimiter: str, name: str, cut: bool = False) -> Iterator[Row]:
    """Rows of a table's text; those of a sample that was cut short without the last one."""
    rows = _tsv_rows(lines, name) if delimiter == "\t" else _csv_rows(lines, delimiter, name, cut)
    last = None
    for row in rows:
        if last is not None:
            yield last
        last = row
    if last is not None and not cut:
        yield last


def _csv_rows(lines: Iterable[str], delimiter: str, name: str, cut: bool) -> Iterator[Row]:
    of_row: list[str] = []

    def remembered() -> Iterator[str]:
        for line in lines:
            of_row.append(line)
            yield line

    reader, told = csv.reader(remembered(), delimiter=delimiter, strict=True), False
    while True:
        start = reader.line_num + 1
        of_row.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if cut and "end of data" in str(error):
                return
            line = start + _open_mark(of_row, delimiter)
            raise InputError(
                f"{name}: the quotation mark that opens a cell in line {line} is not closed, or "
                "closed in the middle of a cell; double the mark if it is part of the cell, or "
                "delete it"
            ) from None
        if len(of_row) > 1 and not told and _are_rows(of_row, delimiter, len(cells)):
            told = True
            _tell_of_marks(name, start, "one row, as CSV has it")
        yield cells


def _open_mark(lines: Sequence[str], delimiter: str) -> int:
    """Of the lines of one row, from 0, that in which the cell opens that is not well closed."""
    opened, inside, at_start = 0, False, True
    for number, line in enumerate(lines):
        place = 0
        while place < len(line):
            sign = line[place]
            if inside and sign == '"':
                if line[place + 1 : place + 2] == '"':
                    place += 1
                elif line[place + 1 : place + 2] in (delimiter, "\r", "\n", ""):
                    inside = False
                else:
                    return opened
            elif not inside:
                if at_start and sign == '"':
                    inside, opened = True, number
                at_start = sign == delimiter
            place += 1
        at_start = at_start or not inside
    return opened


def _are_rows(lines: Sequence[str], delimiter: str, width: int) -> bool:
    """Whether each of the lines that a quoted cell spans would be a row by itself."""
    return width > 1 and all(line.count(delimiter) == width - 1 for line in lines)


def _tell_of_marks(name: str, line: int, taken: str) -> None:
    log.warning(
        "%s: from line %s on, quotation marks enclose lines that would each be a row; they are "
        "read as %s. Is a mark too many?", name, f"{line:,}", taken,
    )  # fmt: skip


# --- TSV: a cell wholly in balanced quotes is unquoted; any other mark is literal -----------

_INSIDE = re.compile(r'(?:[^"]|"")*')  # of a quoted cell, up to the mark that closes it


class _Lines:
    """A text's lines, of which some may be put back."""

    def __init__(self, lines: Iterable[str]):
        self.source, self.ahead, self.number = iter(lines), deque[str](), 0

    def next(self) -> str | None:
        """The next line, None after the last."""
        line = self.ahead.popleft() if self.ahead else next(self.source, None)
        self.number += line is not None
        return line

    def back(self, lines: Sequence[str]) -> None:
        """Put back the lines that came last."""
        self.ahead.extendleft(reversed(lines))
        self.number -= len(lines)


def _tsv_rows(text: Iterable[str], name: str) -> Iterator[Row]:
    lines, width, told = _Lines(text), 0, False
    while (line := lines.next()) is not None:
        if '"' not in line:
            plain = line.rstrip("\r\n")
            cells = plain.split("\t") if plain else []
        else:
            start = lines.number
            cells, spurned = _tsv_row(line, lines, width)
            if spurned and not told:
                told = True
                _tell_of_marks(name, start, "rows, the marks as parts of their cells")
        width = width or len(cells)
        yield cells


def _tsv_row(line: str, lines: _Lines, width: int) -> tuple[list[str], bool]:
    """A row's cells, and whether a cell in quotes was not taken since its lines look like rows."""
    cells, place, spurned = [], 0, False
    while True:
        if line.startswith('"', place):
            end, pulled = _closing(line, place, lines)
            if pulled and end is not None and _are_rows([line, *pulled], "\t", width):
                lines.back(pulled)
                end, spurned = None, True
            elif pulled and end is None:
                lines.back(pulled)
            elif end is not None:
                line += "".join(pulled)
                cells.append(line[place + 1 : end].replace('""', '"'))
                if line[end + 1 : end + 2] != "\t":
                    return cells, spurned
                place = end + 2
                continue
        end = line.find("\t", place)
        cells.append(line[place : end if end >= 0 else None].rstrip("\r\n"))
        if end < 0:
            return cells, spurned
        place = end + 1


def _closing(line: str, place: int, lines: _Lines) -> tuple[int | None, list[str]]:
    """Where the cell that opens at `place` closes, None if it does not, and the lines it takes."""
    pulled: list[str] = []
    text, start, before = line, place + 1, 0
    while True:
        end = _INSIDE.match(text, start).end()
        if end < len(text):  # a mark: it closes a whole cell, or none is there
            whole = text[end + 1 : end + 2] in ("\t", "\r", "\n", "")
            return (before + end if whole else None), pulled
        if len(pulled) == TSV_LINES or (following := lines.next()) is None:
            return None, pulled
        pulled.append(following)
        before, text, start = before + len(text), following, 0
