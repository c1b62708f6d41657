"""Molecules of a pretraining in memory, and the masked micro-batches made of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.encoders.unimol.batching import Budget, plan_batches
from pipeline.encoders.unimol.pretraining.masking import (
    MaskedBatch,
    MaskRecipe,
    mask_batch,
    mask_molecule,
)
from pipeline.encoders.unimol.tokens import (
    DEFAULT_MAX_ATOMS,
    TokenizedMolecule,
    Vocabulary,
    tokenize,
)
from pipeline.pretraining.settings import PretrainSettings

HELD_OUT = 2**31  # stands for the epoch in the seeds of held-out molecules' masks


class PretrainingMolecules:
    """Conformers in memory, about 13 bytes an atom; each is tokenized when it is asked for.

    Parameters
    ----------
    table : columns `atoms` and `coords` of the store's conformers.
    """

    def __init__(self, table: pa.Table, vocabulary: Vocabulary, settings: PretrainSettings):
        self.vocabulary = vocabulary
        self.seed = settings.seed
        self.recipe = MaskRecipe(
            settings.mask_share, settings.unmasked_share, settings.random_share,
            settings.coordinate_noise,
        )  # fmt: skip
        atoms, coords = (table[name].combine_chunks() for name in ("atoms", "coords"))
        self.atoms, self.coords = atoms.flatten().to_numpy(), coords.flatten().to_numpy()
        self.ends = np.concatenate([[0], np.cumsum(atoms.value_lengths().to_numpy())])

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, row: int) -> TokenizedMolecule:
        atoms = slice(self.ends[row], self.ends[row + 1])
        coords = self.coords[3 * atoms.start : 3 * atoms.stop].reshape(-1, 3)
        return tokenize(self.atoms[atoms], coords, self.vocabulary)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each molecule."""
        return np.minimum(np.diff(self.ends), DEFAULT_MAX_ATOMS) + 2

    def masked(self, rows: np.ndarray, epoch: int, budget: Budget) -> Iterator[MaskedBatch]:
        """Micro-batches of some molecules, cut by length.

        A molecule's mask depends on the seed, the epoch and the molecule alone.
        """
        for batch in plan_batches(self.lengths[rows], budget):
            true = [self[row] for row in rows[batch]]
            spoiled = [
                mask_molecule(molecule, self.vocabulary, self.recipe,
                              np.random.RandomState([self.seed, epoch, row]))
                for molecule, row in zip(true, rows[batch])
            ]  # fmt: skip
            yield mask_batch(true, spoiled, self.vocabulary.pad)
