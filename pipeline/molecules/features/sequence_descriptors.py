"""What sequences are in plain numbers: length, charge, hydrophobicity, composition.

Letters beyond the 20 standard amino acids count for the length alone.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.molecules.features.kmers import residue_numbers
from pipeline.molecules.sequences import STANDARD

# Kyte and Doolittle, J. Mol. Biol. 157 (1982).
HYDROPATHY = {
    "A": 1.8, "C": 2.5, "D": -3.5, "E": -3.5, "F": 2.8, "G": -0.4, "H": -3.2, "I": 4.5, "K": -3.9,
    "L": 3.8, "M": 1.9, "N": -3.5, "P": -1.6, "Q": -3.5, "R": -4.5, "S": -0.8, "T": -0.7, "V": 4.2,
    "W": -0.9, "Y": -1.3,
}  # fmt: skip
# Eisenberg's consensus scale, Annu. Rev. Biochem. 53 (1984).
CONSENSUS = {
    "A": 0.62, "C": 0.29, "D": -0.90, "E": -0.74, "F": 1.19, "G": 0.48, "H": -0.40, "I": 1.38,
    "K": -1.50, "L": 1.06, "M": 0.64, "N": -0.78, "P": 0.12, "Q": -0.85, "R": -2.53, "S": -0.18,
    "T": -0.05, "V": 1.08, "W": 0.81, "Y": 0.26,
}  # fmt: skip
WINDOW, TURN = (
    11,
    math.radians(100),
)  # residues of a moment; turn of an α-helix from one to the next
# pK of side chains and ends, of EMBOSS. Acids lose their charge below it, bases above.
ACIDS = {"C": 8.5, "D": 3.9, "E": 4.1, "Y": 10.1}
BASES = {"H": 6.5, "K": 10.8, "R": 12.5}
C_END, N_END = 3.6, 8.6
AROMATIC = "FWY"
NEUTRAL = 7.0
_HALVINGS = 30  # of the 14 units of pH: the isoelectric point is exact to 1e-8

SEQUENCE_DESCRIPTORS = (
    "length",
    "net charge at pH 7",
    "isoelectric point",
    "mean hydrophobicity",
    "hydrophobic moment",
    "aromaticity",
    *(f"share of {letter}" for letter in STANDARD),
)


def sequence_descriptors(sequence: str) -> tuple[float, ...]:
    """The SEQUENCE_DESCRIPTORS of a canonical sequence, in that order.

    The charge is in elementary charges, by Henderson and Hasselbalch with EMBOSS' pK values;
    hydrophobicity is the mean of Kyte and Doolittle's scale, aromaticity the share of F, W and Y
    (both over standard residues). See `hydrophobic_moment`.
    """
    numbers = residue_numbers(sequence)
    standard = numbers[numbers >= 0]
    counts = np.bincount(standard, minlength=len(STANDARD))
    shares = counts / len(sequence)
    known = max(1, len(standard))
    aromatic = sum(counts[STANDARD.index(letter)] for letter in AROMATIC)
    return (
        float(len(sequence)),
        charge(counts, NEUTRAL),
        isoelectric_point(counts),
        float(_values(HYDROPATHY) @ counts / known),
        hydrophobic_moment(numbers),
        float(aromatic / known),
        *shares.tolist(),
    )


def charge(counts: np.ndarray, ph: float) -> float:
    """Net charge of a chain at a pH, its ends free.

    Parameters
    ----------
    counts : (20,) of the residues in STANDARD.
    """
    total = 1 / (1 + 10 ** (ph - N_END)) - 1 / (1 + 10 ** (C_END - ph))
    for letter, pk in BASES.items():
        total += counts[STANDARD.index(letter)] / (1 + 10 ** (ph - pk))
    for letter, pk in ACIDS.items():
        total -= counts[STANDARD.index(letter)] / (1 + 10 ** (pk - ph))
    return float(total)


def isoelectric_point(counts: np.ndarray) -> float:
    """The pH at which a chain has no net charge, 0 to 14; `counts` as of `charge`."""
    low, high = 0.0, 14.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if charge(counts, middle) > 0 else (low, middle)
    return (low + high) / 2


def hydrophobic_moment(numbers: np.ndarray) -> float:
    """The greatest moment of any WINDOW residues as an α-helix (Eisenberg et al., 1982).

    Length of the sum of CONSENSUS values as vectors, each turned by 100° from the one before, over
    the residues of the window; of a shorter sequence over all.

    Parameters
    ----------
    numbers : (n,) of `residue_numbers`; −1 counts as 0 on the scale.
    """
    scale = np.append(_values(CONSENSUS), 0.0)[numbers]  # the last is that of −1
    turned = scale * np.exp(1j * TURN * np.arange(len(scale)))
    width = min(WINDOW, len(scale))
    sums = np.cumsum(np.insert(turned, 0, 0))
    return float(np.abs(sums[width:] - sums[:-width]).max() / width)


def _values(scale: dict[str, float]) -> np.ndarray:
    return np.array([scale[letter] for letter in STANDARD])
