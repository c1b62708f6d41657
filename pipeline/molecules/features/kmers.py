"""Fingerprints of sequences: which words of one, two and three residues they have.

Each of the 20 + 400 + 8,000 words over the standard amino acids has a bit of its own, so no two
words collide, and the order of bits depends on nothing but the alphabet. Words of three residues
tell relatives from strangers; the shorter ones tell how alike peptides are that share none, since
of a dozen residues few words are there at all. Words with X, U, B, Z or O do not count.
"""

from __future__ import annotations

import numpy as np

from pipeline.molecules.sequences import STANDARD

LONGEST_WORD = 3
BITS = sum(len(STANDARD) ** k for k in range(1, LONGEST_WORD + 1))

_NUMBER_OF_BYTE = np.full(128, -1)
_NUMBER_OF_BYTE[np.frombuffer(STANDARD.encode(), np.uint8)] = np.arange(len(STANDARD))


def residue_numbers(sequence: str) -> np.ndarray:
    """Place of each residue in STANDARD, int64 (n,); −1 for a letter that is not there.

    Parameters
    ----------
    sequence : canonical, see `sequences.canonical_sequence`.
    """
    return _NUMBER_OF_BYTE[np.frombuffer(sequence.encode("ascii"), np.uint8)]


def kmers_of(sequence: str) -> np.ndarray:
    """Which words a canonical sequence has: 0 or 1, uint8 (BITS,)."""
    letters = residue_numbers(sequence)
    words, is_known = letters, letters >= 0
    found, first = np.zeros(BITS, np.uint8), 0
    for k in range(1, LONGEST_WORD + 1):
        if k > 1:
            words = words[:-1] * len(STANDARD) + letters[k - 1 :]
            is_known = is_known[:-1] & (letters[k - 1 :] >= 0)
        found[first + words[is_known]] = 1
        first += len(STANDARD) ** k
    return found
