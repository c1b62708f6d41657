"""Sequences in memory, the parts of them that an epoch sees, and the masked batches made of those.

What an epoch's parts are, how they are batched and masked depends on the seed and the epoch alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.encoders.esm.tokens import CLS, EOS, SPECIAL, token_ids
from pipeline.pretraining.sequences.masking import MaskedBatch, Shares, mask_batch, mask_tokens

HELD_OUT = 2**31  # stands for the epoch in the seeds of held-out proteins' masks
PARTS, ORDER = 0, 1  # what else a seed is for; masks have the number of the part in its place


class Parts(NamedTuple):
    """Parts of proteins: number of the protein, first residue and length, (n,) int64 each."""

    protein: np.ndarray
    start: np.ndarray
    length: np.ndarray


class Proteins:
    """Residues of canonical sequences in memory, a byte each."""

    def __init__(self, sequences: Sequence[str]):
        tokens = [token_ids(sequence)[1:-1].astype(np.uint8) for sequence in sequences]
        self.residues = np.concatenate([np.empty(0, np.uint8), *tokens])
        self.ends = np.cumsum([0, *map(len, tokens)])

    def __len__(self) -> int:
        return len(self.ends) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Residues of each."""
        return np.diff(self.ends)

    def tokens(self, protein: int, start: int, length: int) -> np.ndarray:
        """Tokens (N,) int64 of a part, <cls> and <eos> where the protein itself begins and ends.

        So ESM-2 can tell a whole protein from a part of one (Lin et al., Science 2023).
        """
        first, end = self.ends[protein : protein + 2]
        part = slice(first + start, first + start + length)
        head, tail = [CLS] if start == 0 else [], [EOS] if part.stop == end else []
        return np.concatenate([head, self.residues[part], tail]).astype(np.int64)


class Corpus:
    """Proteins, and how they are cut and masked.

    Parameters
    ----------
    longest : residues of a part at most.
    """

    def __init__(self, proteins: Proteins, longest: int, shares: Shares, seed: int):
        self.proteins, self.longest, self.shares, self.seed = proteins, longest, shares, seed

    def __len__(self) -> int:
        return len(self.proteins)

    def parts(self, epoch: int) -> Parts:
        """As many parts of each protein as it takes to hold it, at places drawn uniformly."""
        lengths = self.proteins.lengths
        return self._drawn(np.repeat(np.arange(len(lengths)), -(-lengths // self.longest)), epoch)

    def one_part_each(self) -> Parts:
        """Each protein whole, or a part of it that never changes."""
        return self._drawn(np.arange(len(self)), HELD_OUT)

    def _drawn(self, protein: np.ndarray, epoch: int) -> Parts:
        whole = self.proteins.lengths[protein]
        length = np.minimum(whole, self.longest)
        draw = np.random.default_rng([self.seed, epoch, PARTS]).random(len(protein))
        return Parts(protein, (draw * (whole - length + 1)).astype(np.int64), length)

    def steps(self, parts: Parts, epoch: int, tokens: int) -> list[np.ndarray]:
        """Rows of each step of an epoch: parts of like length, in an order drawn at random.

        Their number is the same for all epochs.

        Parameters
        ----------
        tokens : of a step at most, padding counted.
        """
        rng = np.random.default_rng([self.seed, epoch, ORDER])
        shuffled = rng.permutation(len(parts.length))
        steps = [shuffled[rows] for rows in by_length(parts.length[shuffled], tokens)]
        return [steps[i] for i in rng.permutation(len(steps))]

    def masked(
        self, parts: Parts, rows: np.ndarray, epoch: int, tokens: int
    ) -> Iterator[MaskedBatch]:
        """Masked batches of some parts, of at most so many tokens each, padding counted.

        A part's mask depends on the seed, the epoch and the part's number alone.
        """
        for batch in by_length(parts.length[rows], tokens):
            true = [self.proteins.tokens(*(each[row] for each in parts)) for row in rows[batch]]
            rngs = (np.random.default_rng([self.seed, epoch, 2 + row]) for row in rows[batch])
            yield mask_batch(true, [mask_tokens(t, self.shares, rng) for t, rng in zip(true, rngs)])


def by_length(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Rows in batches of like length, the longest first; a row that is too long is one by itself.

    Parameters
    ----------
    lengths : residues (n,); equal ones keep their order.
    tokens : rows times the longest one's tokens, at most.
    """
    order, batches, first = np.argsort(-lengths, kind="stable"), [], 0
    while first < len(order):
        rows = max(1, tokens // int(lengths[order[first]] + SPECIAL))
        batches.append(order[first : first + rows])
        first += rows
    return batches
