"""What a file holds, before any of its columns means something."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

PIECE_ROWS = 16_384  # read at once
MOST_TEXT = 1000  # characters of a row that cannot be read that are kept
HEAD_ROWS = 200  # looked at before anything else is done

# Of a structure: its atomic numbers, coordinates (3N,) in Å, "3d" or "2d", and how many hydrogens
# it leaves out.
STRUCTURE_COLUMNS = ("(atoms)", "(coords)", "(kind)", "(hydrogens left out)")

Values = list[Any] | pa.ChunkedArray | pa.Array


class Refused(NamedTuple):
    """A row that cannot be read: its place among the file's rows, its text, and why."""

    position: int
    text: str
    reason: str


class Piece(NamedTuple):
    """Some rows of a file, one after the other.

    Attributes
    ----------
    columns : values of each column asked for; text as str, None where there is none.
    positions : (n,) places of these rows among the file's rows, from 0, headers not counted.
    refused : the rows between them that cannot be read.
    """

    columns: dict[str, Values]
    positions: np.ndarray
    refused: Sequence[Refused] = ()


@dataclass(frozen=True)
class Content:
    """A file that has been opened and whose head has been looked at.

    Attributes
    ----------
    kind : what it is taken for, in words.
    columns : their names as the file has them.
    pieces : the file's rows, read anew, of the columns asked for.
    usual : the columns from which id, smiles, split, label and domain come where no flag says
        otherwise.
    fixed : of these, those that no flag can change, with the reason.
    notes : what had to be guessed.
    of_head : whether `columns` are those of the first HEAD_ROWS rows, and others may follow.
    has_structures : whether `pieces` knows the columns STRUCTURE_COLUMNS: coordinates of the file.
    holds_sequences : whether its format says that its molecules are sequences.
    """

    kind: str
    columns: Sequence[str]
    pieces: Callable[[Sequence[str]], Iterator[Piece]]
    usual: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    of_head: bool = False
    has_structures: bool = False
    holds_sequences: bool = False


def collected(
    rows: Iterator[tuple[Sequence[Any], int] | Refused],
    columns: Sequence[str],
    most: int | None = None,
) -> Iterator[Piece]:
    """Pieces of at most so many rows that come one by one: values and place, or refused."""
    most = most or PIECE_ROWS
    made: list[Sequence[Any]] = []
    positions: list[int] = []
    refused: list[Refused] = []

    def piece() -> Piece:
        values = list(map(list, zip(*made))) if made else [[] for _ in columns]
        return Piece(dict(zip(columns, values)), np.array(positions, dtype=np.int64), refused)

    for row in rows:
        if isinstance(row, Refused):
            refused.append(row._replace(text=row.text[:MOST_TEXT]))
        else:
            made.append(row[0])
            positions.append(row[1])
        if len(made) + len(refused) == most:
            yield piece()
            made, positions, refused = [], [], []
    if made or refused:
        yield piece()
