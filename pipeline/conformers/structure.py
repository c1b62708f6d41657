"""What kind of structure an encoder gets of a molecule: 3D as it should be, or something less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

# The worst first: a molecule has the first one that is true of it.
TWO_D, CROPPED, CLASHING, THREE_D = STRUCTURES = ("2d", "cropped", "clashing", "3d")
UNKNOWN = "unknown"
CLOSEST = 1.0  # Å; the shortest bond between two atoms other than hydrogen is 1.1 Å long


def structure_of(
    atoms: np.ndarray,
    coords: np.ndarray,
    kind: str | None,
    *,
    hydrogens: bool,
    max_atoms: int | None,
) -> str | None:
    """One of STRUCTURES; None if nobody knows the conformer's kind.

    Parameters
    ----------
    atoms : (N,) atomic numbers.
    coords : (N, 3) or (3N,), Å.
    kind : of the conformer, "3d" or "2d".
    hydrogens : whether the encoder sees hydrogens.
    max_atoms : of the atoms that it sees, it takes a random subset of so many; None for all.
    """
    if kind is None or kind == TWO_D:
        return kind
    heavy = np.asarray(atoms) != 1
    seen = len(heavy) if hydrogens else int(heavy.sum())
    if max_atoms is not None and seen > max_atoms:
        return CROPPED
    xyz = np.asarray(coords, dtype=np.float64).reshape(-1, 3)[heavy]
    return CLASHING if _closest(xyz) < CLOSEST else THREE_D


def _closest(xyz: np.ndarray) -> float:
    """The smallest distance of two points (N, 3); infinite if there are not two."""
    first, second = np.triu_indices(len(xyz), k=1)
    squares = ((xyz[first] - xyz[second]) ** 2).sum(axis=1)
    return float(np.sqrt(squares.min())) if len(squares) else np.inf


def structure_counts(structures: Iterable[str | None]) -> dict[str, int]:
    """How many molecules have each of STRUCTURES; and of how many nobody knows, if there are any.

    Parameters
    ----------
    structures : one a molecule, or a Counter of them.
    """
    found = Counter(structures)
    unknown = {UNKNOWN: found[None]} if found[None] else {}
    return {**{name: found[name] for name in STRUCTURES[::-1]}, **unknown}


def structures_line(counts: dict[str, int]) -> str | None:
    """Counts for the reader; None if all structures are 3D, or there are none."""
    if sum(counts.values()) == counts.get(THREE_D, 0):
        return None
    told = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    return f"{told} (column structure)"
