"""FASTA: a header line that begins with `>`, then the sequence on any number of lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from pipeline.molecules.reading.content import HEAD_ROWS, Content, Piece, Refused, collected
from pipeline.molecules.reading.text import clean, lines_of, opened_text
from pipeline.runtime.errors import InputError

NAME, SEQUENCE, DESCRIPTION = "(name)", "(sequence)", "(description)"
COLUMNS = (NAME, SEQUENCE, DESCRIPTION)
LONGEST_RECORD = 1 << 20  # characters; no protein is as long, and chromosomes shall not fill memory
PIECE_RECORDS = 4096  # read at once
NUCLEOTIDES, ENOUGH = frozenset("ACGTUNacgtun"), 50  # letters, and how many of them must be alike

Record = tuple[str, str, str]


def open_fasta(uri: str) -> Content:
    """A FASTA file: ids are the first words of headers, the rest of a header the description.

    A record without letters is a row without a sequence.

    Raises
    ------
    InputError
        If it does not begin with a header.
    """
    head = list(islice(_records(uri), HEAD_ROWS))
    letters = "".join(record[1] for record in head if not isinstance(record, Refused))
    notes = []
    if len(letters) >= ENOUGH and NUCLEOTIDES.issuperset(letters):
        notes.append(
            "its first records have no letters but A, C, G, T, U and N: they look like "
            "nucleotides, and are read as amino acids"
        )

    def rows(columns: Sequence[str]) -> Iterator[tuple[list[str | None], int] | Refused]:
        wanted = [COLUMNS.index(name) for name in columns]
        for position, record in enumerate(_records(uri)):
            if isinstance(record, Refused):
                yield record._replace(position=position)
            else:
                yield [record[place] or None for place in wanted], position

    def pieces(columns: Sequence[str]) -> Iterator[Piece]:
        yield from collected(rows(columns), columns, PIECE_RECORDS)

    usual = {"id": NAME, "smiles": SEQUENCE}
    return Content("a FASTA file", COLUMNS, pieces, usual, notes=notes, holds_sequences=True)


def _records(uri: str) -> Iterator[Record | Refused]:
    """Name, sequence and description of each record."""
    header: str | None = None
    lines: list[str] = []
    length = 0
    with opened_text(uri) as file:
        for line in lines_of(file, uri):
            if line.startswith(">"):
                if header is not None:
                    yield _record(header, lines, length)
                header, lines, length = line[1:], [], 0
            elif header is None and line.strip():
                raise InputError(
                    f"{uri}: not FASTA: its first line does not begin with '>' "
                    f"({clean(line.strip())[:40]!r}); a table ends in .csv, .tsv or .parquet"
                )
            elif header is not None:
                length += len(line)
                if length <= LONGEST_RECORD:
                    lines.append(line.strip())
    if header is not None:
        yield _record(header, lines, length)


def _record(header: str, lines: Sequence[str], length: int) -> Record | Refused:
    name, description = (*clean(header).strip().split(maxsplit=1), "", "")[:2]
    if length > LONGEST_RECORD:
        return Refused(0, name, f"FASTA record of more than {LONGEST_RECORD:,} characters")
    return name, clean("".join(lines)), description
