"""What is kept of each residue of a structure: distances, torsions, contacts, pLDDT.

All of it stays the same when the structure is turned or moved, and its size grows with the number
of residues n, not with n²: no N×N matrix is kept. What cannot be measured is NaN: torsions at ends
and chain breaks, neighbours beyond the ends, all of a residue whose Cα is missing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CODE_VERSION = 1  # raise it when the same coordinates would give other features

ALONG = (-4, -3, -2, -1, 1, 2, 3, 4)  # neighbours in sequence, by their offset j − i
NEAREST = 8  # neighbours in space, of those further off in sequence
CONTACT = 8.0  # Å between two Cα
# |j − i| of contacts: within a helix' turn, then short, medium and long range as CASP counts them.
RANGES = {"turn": (3, 6), "short": (6, 12), "medium": (12, 24), "long": (24, None)}
# Å from C to the next N at most, 1.5 times the bond, as gemmi has it: else a chain break.
PEPTIDE_BOND = 2.0
BACKBONE = ("N", "CA", "C")

COLUMNS = (
    *(f"distance_{offset:+d}" for offset in ALONG),
    *(f"near_distance_{rank}" for rank in range(1, NEAREST + 1)),
    *(f"near_offset_{rank}" for rank in range(1, NEAREST + 1)),
    "sin_phi", "cos_phi", "sin_psi", "cos_psi",
    "plddt",
    *(f"contacts_{name}" for name in RANGES),
)  # fmt: skip
WIDTH = len(COLUMNS)
STORED = np.float16  # 0.002 Å at 3.8 Å, 0.03 Å at 60 Å; offsets are exact up to MOST_RESIDUES
MOST_RESIDUES = 2048


class ResidueFeatures(NamedTuple):
    """Features of one structure's residues, for a model: `values` and where there are any.

    Attributes
    ----------
    values : (n, WIDTH) float32; 0 where nothing could be measured.
    mask : (n, WIDTH) bool, whether it was measured.
    """

    values: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> ResidueFeatures:
        """Of features with NaN where nothing could be measured."""
        mask = np.isfinite(features)
        return cls(np.where(mask, features, 0).astype(np.float32), mask)


def backbone_features(backbone: np.ndarray, plddt: np.ndarray | None = None) -> np.ndarray:
    """Features of a structure's residues, in the order of COLUMNS.

    Parameters
    ----------
    backbone : (n, 3, 3), N, Cα and C of each residue of the sequence, in Å; NaN for an atom that
        is missing.
    plddt : (n,) of Cα, from 0 to 1; NaN, or None for all, where there is none.

    Returns
    -------
    (n, WIDTH) float32; NaN where nothing can be measured. Distances in Å between Cα; offsets and
    contacts in residues.
    """
    backbone = np.asarray(backbone, np.float64)
    pairs = _distances(backbone[:, 1])
    confidence = np.full(len(backbone), np.nan) if plddt is None else np.asarray(plddt)
    columns = [
        *(_along(pairs, offset) for offset in ALONG),
        *_nearest(pairs),
        *_torsions(backbone),
        confidence,
        *(_contacts(pairs, *bounds) for bounds in RANGES.values()),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def torsion_angles(backbone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """φ and ψ of each residue, radians (IUPAC): NaN at ends and where no peptide bond is.

    Parameters
    ----------
    backbone : as of `backbone_features`.
    """
    n, ca, c = (np.asarray(backbone, np.float64)[:, atom] for atom in range(3))
    phi, psi = np.full((2, len(n)), np.nan)
    bonded = np.linalg.norm(n[1:] - c[:-1], axis=1) <= PEPTIDE_BOND  # False for NaN
    phi[1:] = np.where(bonded, _dihedral(c[:-1], n[1:], ca[1:], c[1:]), np.nan)
    psi[:-1] = np.where(bonded, _dihedral(n[:-1], ca[:-1], c[:-1], n[1:]), np.nan)
    return phi, psi


def _dihedral(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The angle (n,) about b–c from a to d: (n, 3) each."""
    axis = c - b
    left, right = np.cross(b - a, axis), np.cross(axis, d - c)
    x = np.linalg.norm(axis, axis=1) * np.sum((b - a) * right, axis=1)
    return np.arctan2(x, np.sum(left * right, axis=1))


def _torsions(backbone: np.ndarray) -> list[np.ndarray]:
    return [function(angle) for angle in torsion_angles(backbone) for function in (np.sin, np.cos)]


def _distances(ca: np.ndarray) -> np.ndarray:
    """All pairs' distances (n, n); NaN where an atom is missing."""
    return np.linalg.norm(ca[:, None] - ca[None], axis=2)


def _along(pairs: np.ndarray, offset: int) -> np.ndarray:
    """Distance of each residue to the one at an offset in sequence."""
    found = np.full(len(pairs), np.nan)
    if abs(offset) < len(pairs):
        diagonal = np.diagonal(pairs, offset)
        start = max(0, -offset)
        found[start : start + len(diagonal)] = diagonal
    return found


def _separations(residues: int) -> np.ndarray:
    """j − i of all pairs (n, n)."""
    place = np.arange(residues)
    return place[None] - place[:, None]


def _nearest(pairs: np.ndarray) -> list[np.ndarray]:
    """Distances of the nearest beyond ALONG, and then their offsets, 2 · NEAREST times (n,)."""
    apart = _separations(len(pairs))
    far = np.where(np.isnan(pairs) | (abs(apart) <= max(ALONG)), np.inf, pairs)
    order = np.argsort(far, axis=1, kind="stable")[:, :NEAREST]
    distance = np.full((len(pairs), NEAREST), np.nan)
    offset = distance.copy()
    distance[:, : order.shape[1]] = np.take_along_axis(far, order, axis=1)
    offset[:, : order.shape[1]] = np.take_along_axis(apart, order, axis=1)
    none = ~np.isfinite(distance)
    distance[none] = offset[none] = np.nan
    return [*distance.T, *offset.T]


def _contacts(pairs: np.ndarray, least: int, below: int | None) -> np.ndarray:
    """Residues within CONTACT of each, at least so far off in sequence and nearer than `below`."""
    apart = abs(_separations(len(pairs)))
    counted = (apart >= least) & (apart < (below or len(pairs)))
    count = np.sum((pairs <= CONTACT) & counted, axis=1).astype(np.float64)
    count[np.isnan(np.diagonal(pairs))] = np.nan
    return count
