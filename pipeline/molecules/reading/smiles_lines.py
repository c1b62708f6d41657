"""SMILES files: a molecule a line, then its name, with a header or without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from pipeline.molecules.reading.content import HEAD_ROWS, Content, Piece, Refused, collected
from pipeline.molecules.reading.text import clean, lines_of, opened_text


def open_smiles(uri: str, smiles_of: Callable[[Sequence[str]], str | None]) -> Content:
    """A SMILES file: its first column the SMILES, with a CXSMILES extension if there is one, its
    second the id, if one of its first lines has any.

    Parameters
    ----------
    smiles_of : the name among a header's cells that is the SMILES column's, None if the cells
        are no header.
    """
    with opened_text(uri) as file:
        head = [fields(line) for line in islice(lines_of(file, uri), HEAD_ROWS)] or [[""]]
    first = head[0]
    smiles = smiles_of(first)
    if smiles is None:
        names, notes = ["column_1", "column_2"], []
        if any(len(cells) > len(names) for cells in head):
            notes.append("lines have more than two fields: the second is the id, others are unread")
        what = "a SMILES file without a header"
        has_ids = any(len(cells) > 1 for cells in head)
        usual = {"smiles": names[0]} | ({"id": names[1]} if has_ids else {})
    else:
        names, what = first, "a SMILES file with a header"
        others = [name for name in names if name != smiles]
        usual = {"smiles": smiles} | ({"id": others[0]} if others else {})
        notes = [f"its first line is read as a header: {', '.join(names)}"]

    def rows(columns: Sequence[str]) -> Iterator[tuple[list[str | None], int] | Refused]:
        wanted = [names.index(name) for name in columns]
        with opened_text(uri) as file:
            lines = lines_of(file, uri)
            if smiles is not None:
                next(lines)
            for position, line in enumerate(lines):
                cells = fields(line)
                if smiles is not None and "\t" in line and len(cells) > len(names):
                    reason = f"row has {len(cells)} columns, expected {len(names)}"
                    yield Refused(position, clean(line.rstrip("\n")), reason)
                else:
                    yield [cells[i] if i < len(cells) else None for i in wanted], position

    def pieces(columns: Sequence[str]) -> Iterator[Piece]:
        yield from collected(rows(columns), columns)

    return Content(what, names, pieces, usual, notes=notes)


def fields(line: str) -> list[str]:
    """A line's fields, between tabs or blanks, a SMILES and its CXSMILES extension as one.

    RDKit knows no other blanks.
    """
    line = line.rstrip("\n")
    if "\t" in line:
        cells = [cell.strip(" ") for cell in line.split("\t")]
    else:
        cells = [cell for cell in line.split(" ") if cell] or [""]
    if len(cells) > 1 and cells[1].startswith("|"):
        for end in range(1, len(cells)):
            if cells[end].endswith("|") and (end > 1 or len(cells[1]) > 1):
                return [" ".join(cells[: end + 1]), *cells[end + 1 :]]
    return cells
