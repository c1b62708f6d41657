"""ESM-2's task: some residues of a sequence are hidden, to be told from the others.

Shares as in BERT (Devlin et al., NAACL 2019), which ESM-2 follows (Lin et al., Science 2023): of
the residues to be told 80 % become <mask>, 10 % a random residue, 10 % stay. Residues that no one
knows or that are none of the twenty (X, B, Z, U, O) are seen, but never to be told.

Shapes: B sequences, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.encoders.esm.tokens import MASK, PAD, VOCABULARY
from pipeline.molecules.sequences import STANDARD

RESIDUES = np.array([VOCABULARY.index(letter) for letter in STANDARD])  # ids of the twenty
IS_RESIDUE = np.isin(np.arange(len(VOCABULARY)), RESIDUES)


class Shares(NamedTuple):
    """Share of residues to be told; of those, the shares that stay and that are swapped."""

    masked: float = 0.15
    unmasked: float = 0.1
    random: float = 0.1


class MaskedBatch(NamedTuple):
    """Padded sequences: as the model sees them, and as they are.

    tokens, true_tokens (B, N) int64; masked, which are to be told, and real, which are no padding,
    (B, N) bool.
    """

    tokens: Tensor
    true_tokens: Tensor
    masked: Tensor
    real: Tensor

    def to(self, device: torch.device) -> MaskedBatch:
        """The batch on a device."""
        return MaskedBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def mask_tokens(
    tokens: np.ndarray, shares: Shares, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What the model sees of a sequence (N,), and which of its residues it has to tell (N,) bool.

    Of n residues n times the share are to be told, rounded up or down at random so that the mean
    is exact; a short sequence may have none.
    """
    places = np.flatnonzero(IS_RESIDUE[tokens])
    count = int(len(places) * shares.masked + rng.random())
    chosen = rng.choice(places, count, replace=False)
    draw = rng.random(count)
    swapped = draw < shares.random
    seen, masked = tokens.copy(), np.zeros(len(tokens), bool)
    masked[chosen] = True
    seen[chosen[swapped]] = rng.choice(RESIDUES, swapped.sum())
    seen[chosen[draw >= shares.random + shares.unmasked]] = MASK
    return seen, masked


def mask_batch(
    sequences: Sequence[np.ndarray], spoiled: Sequence[tuple[np.ndarray, np.ndarray]]
) -> MaskedBatch:
    """Stack sequences (N,) and what `mask_tokens` made of them, padded at the end."""
    shape = len(sequences), max(map(len, sequences))
    tokens = np.full((2, *shape), PAD, dtype=np.int64)
    masked = np.zeros(shape, dtype=bool)
    for row, (true, (seen, chosen)) in enumerate(zip(sequences, spoiled, strict=True)):
        tokens[0, row, : len(true)], tokens[1, row, : len(true)] = seen, true
        masked[row, : len(true)] = chosen
    seen, true = torch.from_numpy(tokens)
    return MaskedBatch(seen, true, torch.from_numpy(masked), true.ne(PAD))
