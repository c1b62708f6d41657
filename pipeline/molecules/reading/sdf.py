"""SDF: records read one by one, each parsed by RDKit's supplier, its properties as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from rdkit import Chem

from pipeline.molecules.reading.content import (
    HEAD_ROWS,
    STRUCTURE_COLUMNS,
    Content,
    Piece,
    Refused,
    collected,
)
from pipeline.molecules.reading.text import clean, lines_of, opened_text
from pipeline.runtime.errors import InputError

END = "$$$$"
LONGEST_RECORD = 1_000_000  # lines
PIECE_RECORDS = 512  # read at once
TITLE, STRUCTURE = "(title)", "(structure)"  # columns that every SDF has, and no property is


def open_sdf(uri: str) -> Content:
    """An SDF: SMILES from its structures, ids from their titles, properties as columns.

    Raises
    ------
    InputError
        If its first record is none.
    """
    head = list(islice(_records(uri), HEAD_ROWS))
    if head and not _is_record(head[0]):
        raise InputError(f"{uri}: not an SDF: its first record has no line with V2000 or V3000")
    names = [TITLE, STRUCTURE]
    for record in head:
        names += [name for name in _properties(record) if name not in names]

    def rows(columns: Sequence[str]) -> Iterator[tuple[list, int] | Refused]:
        for position, record in enumerate(_records(uri)):
            yield _row(record, position, columns)

    def pieces(columns: Sequence[str]) -> Iterator[Piece]:
        yield from collected(rows(columns), columns, PIECE_RECORDS)

    titled = any(record.split("\n", 1)[0].strip() for record in head)
    usual = {"smiles": STRUCTURE} | ({"id": TITLE} if titled else {})
    return Content("an SDF", names, pieces, usual, of_head=True, has_structures=True)


def _records(uri: str) -> Iterator[str]:
    """The text of each record, without the line that ends it."""
    lines: list[str] = []
    with opened_text(uri) as file:
        for line in lines_of(file, uri):
            if line.startswith(END):
                yield "".join(lines)
                lines = []
                continue
            lines.append(line)
            if len(lines) > LONGEST_RECORD:
                raise InputError(
                    f"{uri}: not an SDF: {LONGEST_RECORD:,} lines without one that begins {END}"
                )
    if any(line.strip() for line in lines):
        yield "".join(lines)


def _is_record(record: str) -> bool:
    return any(line.rstrip().endswith(("V2000", "V3000")) for line in record.split("\n")[:5])


def _properties(record: str) -> dict[str, str]:
    """The data items of a record, by name."""
    found: dict[str, str] = {}
    lines = iter(record.split("\n"))
    for line in lines:
        if line.startswith(">") and "<" in line:
            name = line[line.index("<") + 1 : line.rindex(">")] if ">" in line[1:] else ""
            value = []
            for text in lines:
                if not text.strip():
                    break
                value.append(text)
            if name:
                found[name] = "\n".join(value)
    return found


def _row(record: str, position: int, columns: Sequence[str]) -> tuple[list, int] | Refused:
    title = clean(record.split("\n", 1)[0].strip())
    if not _is_record(record):
        return Refused(position, title, "SDF record without a line that ends in V2000 or V3000")
    supplier = Chem.SDMolSupplier()
    supplier.SetData(clean(record), removeHs=False)
    whole = supplier[0] if len(supplier) else None
    if whole is None:
        return Refused(position, title, "RDKit cannot read the SDF record")
    values: dict = {TITLE: title or None, STRUCTURE: Chem.MolToSmiles(Chem.RemoveHs(whole))}
    if STRUCTURE_COLUMNS[0] in columns and whole.GetNumConformers():
        values |= dict(zip(STRUCTURE_COLUMNS, _structure(whole)))
    values = _properties(record) | values
    return [values.get(name) for name in columns], position


def _structure(molecule: Chem.Mol) -> tuple[np.ndarray, np.ndarray, str, int]:
    """The values of STRUCTURE_COLUMNS."""
    shape = molecule.GetConformer()
    atoms = list(molecule.GetAtoms())
    return (
        np.array([atom.GetAtomicNum() for atom in atoms], np.uint8),
        shape.GetPositions().astype(np.float32).ravel(),
        "3d" if shape.Is3D() else "2d",
        sum(atom.GetTotalNumHs() for atom in atoms),  # those that are no atoms of the record
    )
