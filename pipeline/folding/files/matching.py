"""Which chain of which file is a sequence's structure.

A chain counts only if its sequence is that of the row, letter by letter. Of several, that with the
most residues observed comes first, then the first by name. A row's id decides nothing: it tells why
a row has no structure.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.folding.files.reading import entry_of
from pipeline.molecules.rejected import kind_of
from pipeline.runtime.errors import RowRejected

_TEXT = pa.string()
# A protein chain of a file; or a chain, or a whole file (no chain), with the reason why it is none.
CHAINS = pa.schema(
    [("file", _TEXT), ("sha256", _TEXT), ("chain", _TEXT), ("sequence", _TEXT),
     ("observed", pa.int32()), ("reason", _TEXT)]
)  # fmt: skip


class Place(NamedTuple):
    """Where a structure is: file, below the folder, and chain."""

    file: str
    chain: str

    def __str__(self) -> str:
        return f"{self.file}:{self.chain}"

    @classmethod
    def of(cls, text: str) -> Place:
        """The place that a text stands for."""
        return cls(*text.rsplit(":", 1))


class FileIndex:
    """What chains a folder's files have.

    Parameters
    ----------
    chains : CHAINS.
    """

    def __init__(self, chains: pa.Table):
        rows = chains.to_pylist()
        self.files = {row["file"]: row["sha256"] for row in rows}
        self.faults = {row["file"]: row["reason"] for row in rows if row["chain"] is None}
        self.others = [row["reason"] for row in rows if row["chain"] and row["reason"]]
        proteins = Counter(row["file"] for row in rows if row["reason"] is None)
        self._by_sequence, self._by_name = defaultdict(list), defaultdict(list)
        for row in rows:
            for name in _names_of(row, proteins[row["file"]]):
                self._by_name[name].append(row)
            if row["reason"] is None:
                self._by_sequence[row["sequence"]].append(row)

    @property
    def digest(self) -> str:
        """Hex SHA-256 that stands for the files' names and content, wherever the folder lies."""
        return hashlib.sha256(json.dumps(sorted(self.files.items())).encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """Files read, and by kind of reason those that could not be and chains that are no use."""
        return {
            "read": len(self.files) - len(self.faults),
            "unreadable": dict(Counter(map(kind_of, self.faults.values()))),
            "other_chains": dict(Counter(map(kind_of, self.others))),
        }

    def place_of(self, sequence: str, ids: Iterable[str]) -> Place:
        """Where the structure of a sequence is.

        Parameters
        ----------
        ids : of the rows that have the sequence, for the reason.

        Raises
        ------
        RowRejected
            If no file has that sequence; it says what was found under its ids.
        """
        equal = self._by_sequence.get(sequence)
        if not equal:
            names = {name for row_id in ids for name in names_of_id(row_id)}
            raise RowRejected(self._why_not(sequence, names))
        best = min(equal, key=lambda row: (-row["observed"], row["file"], row["chain"]))
        return Place(best["file"], best["chain"])

    def _why_not(self, sequence: str, names: set[str]) -> str:
        named = [row for name in sorted(names) for row in self._by_name.get(name, ())]
        if not named:
            return "no structure file has it, by its id or its sequence"
        first = named[0]
        if first["reason"] is not None:
            of_chain = f", chain {first['chain']}" if first["chain"] else ""
            return f"{first['reason']}: {first['file']}{of_chain}"
        place, differs = (
            Place(first["file"], first["chain"]),
            _difference(sequence, first["sequence"]),
        )
        return f"the structure of its id has another sequence: {place}, {differs}"


def names_of_id(row_id: str) -> set[str]:
    """What a file may be called of a row, in lower case; of sp|P12345|NAME also its parts."""
    parts = row_id.split("|")
    return {name.lower() for name in (row_id, *(parts[1:3] if len(parts) == 3 else ())) if name}


def _names_of(row: dict[str, Any], proteins: int) -> set[str]:
    """What a row may be called of a chain: 1abc_a; 1abc too, of a file with one protein chain.

    Parameters
    ----------
    row : of CHAINS.
    proteins : protein chains of its file.
    """
    entry = entry_of(row["file"]).lower()
    of_chain = {f"{entry}_{row['chain'].lower()}"} if row["chain"] else set()
    is_it = proteins == 0 or (proteins == 1 and row["reason"] is None)
    return of_chain | ({entry} if is_it else set())


def _difference(wanted: str, found: str) -> str:
    if len(wanted) != len(found):
        return f"{len(found):,} residues instead of {len(wanted):,}"
    place = next(i for i, (a, b) in enumerate(zip(wanted, found)) if a != b)
    return f"{found[place]} instead of {wanted[place]} at {place + 1:,}"
