"""Peptides end to end: latents, residues and structures of all of them in a few arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.molecules.sequences import STANDARD

NUMBERS = {letter: number for number, letter in enumerate(STANDARD)}


class Peptides(NamedTuple):
    """n peptides of r residues in all.

    Attributes
    ----------
    latents : (r, d) float16, scaled.
    tokens : (r,) uint8, places of the residues in STANDARD.
    starts : (n + 1,) int64, where each begins, and the last ends.
    classes : (n,) int64, the number of each one's class.
    structures : (r, s) float16 of the residues, scaled; None for a model without structures.
    has_structure : (n,) bool, of which peptides anything is known.
    """

    latents: np.ndarray
    tokens: np.ndarray
    starts: np.ndarray
    classes: np.ndarray
    structures: np.ndarray | None = None
    has_structure: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        """Residues of each (n,)."""
        return np.diff(self.starts)

    def padded(self, rows: np.ndarray, length: int) -> Padded:
        """Some of them, padded at the end to a length."""
        lengths = self.lengths[rows]
        place = np.arange(length)
        real = place < lengths[:, None]
        where = np.where(real, self.starts[rows, None] + place, 0)

        def of(values: np.ndarray) -> np.ndarray:
            taken = values[where]
            taken[~real] = 0
            return taken

        structures = None if self.structures is None else of(self.structures)
        known = None if structures is None else self.has_structure[rows]
        return Padded(of(self.latents), of(self.tokens), real, structures, known)


class Padded(NamedTuple):
    """Peptides side by side, 0 where there is no residue: see `Peptides` and `padded`."""

    latents: np.ndarray
    tokens: np.ndarray
    real: np.ndarray
    structures: np.ndarray | None
    has_structure: np.ndarray | None


def tokens_of(sequences: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """`tokens` and `starts` of sequences, as in `Peptides`."""
    tokens = np.array([NUMBERS[letter] for text in sequences for letter in text], np.uint8)
    lengths = [len(text) for text in sequences]
    return tokens, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def padded_length(length: int) -> int:
    """What a peptide is padded to: at most a quarter longer than it is, or by 7 residues.

    So there are few shapes of batches, which a compiler compiles one by one.
    """
    coarse = max(8, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // coarse) * coarse


def parts_of(lengths: np.ndarray, residues: int) -> list[slice]:
    """Slices of ascending lengths, each with so many residues at most, padding included."""
    parts, start = [], 0
    for end in range(1, len(lengths) + 1):
        next_too = (end + 1 - start) * padded_length(int(lengths[min(end, len(lengths) - 1)]))
        if end == len(lengths) or next_too > residues:
            parts.append(slice(start, end))
            start = end
    return parts
