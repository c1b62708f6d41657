"""Uni-Mol's pretraining task: some atoms hidden and moved, to be told from the others.

Follows `unimol_tools.pretrain.dataset` (MIT), draw for draw, so that a seed gives its masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.encoders.unimol.tokens import ELEMENTS, TokenizedMolecule, Vocabulary


@dataclass(frozen=True)
class MaskRecipe:
    """How molecules are spoiled; the defaults are the published ones.

    Attributes
    ----------
    masked : share of atoms to be told.
    unmasked, random : shares of those that keep their token and place, and that get the token
        of a random element; all others become [MASK].
    noise : Å; every coordinate of an atom that is masked or random moves by up to this, uniformly.
    """

    masked: float = 0.15
    unmasked: float = 0.05
    random: float = 0.05
    noise: float = 1.0


class MaskedMolecule(NamedTuple):
    """What the model sees, and which atoms it has to tell.

    tokens (N,) int64, coords (N, 3) float32 in Å; masked (N,) bool, never [CLS] or [SEP].
    """

    tokens: np.ndarray
    coords: np.ndarray
    masked: np.ndarray


class MaskedBatch(NamedTuple):
    """Padded molecules: spoiled, and as they were.

    tokens, true_tokens (B, N) int64; coords, true_coords (B, N, 3) float32, Å; masked, which are
    to be told, and real, which are no padding, (B, N) bool.
    """

    tokens: Tensor
    coords: Tensor
    masked: Tensor
    true_tokens: Tensor
    true_coords: Tensor
    real: Tensor

    def to(self, device: torch.device) -> MaskedBatch:
        """The batch on a device."""
        return MaskedBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def mask_molecule(
    molecule: TokenizedMolecule,
    vocabulary: Vocabulary,
    recipe: MaskRecipe,
    rng: np.random.RandomState,
) -> MaskedMolecule:
    """Hide and move some atoms of a molecule; a small molecule may have none to tell."""
    atoms, xyz = molecule.tokens[1:-1].copy(), molecule.coords[1:-1].copy()
    size = len(atoms)
    chosen = np.zeros(size, dtype=bool)
    chosen[rng.choice(size, int(size * recipe.masked + rng.random_sample()), replace=False)] = True
    hidden = chosen
    other = recipe.random + recipe.unmasked
    swapped = np.zeros(size, dtype=bool)
    if other > 0:
        swapped = chosen & (rng.random_sample(size) < other)
        if recipe.random == 0:
            kept = swapped
            swapped = np.zeros(size, dtype=bool)
        elif recipe.unmasked == 0:
            kept = np.zeros(size, dtype=bool)
        else:
            kept = swapped & (rng.random_sample(size) < recipe.unmasked / other)
            swapped = swapped & ~kept
        hidden = chosen & ~kept
    atoms[hidden] = vocabulary.mask
    xyz[hidden] += rng.uniform(-recipe.noise, recipe.noise, (hidden.sum(), 3)).astype(np.float32)
    if swapped.any():
        elements = np.zeros(len(vocabulary))
        elements[vocabulary.atoms(list(ELEMENTS))] = 1
        atoms[swapped] = rng.choice(len(vocabulary), swapped.sum(), p=elements / elements.sum())
    tokens, coords = molecule.tokens.copy(), molecule.coords.copy()
    tokens[1:-1], coords[1:-1] = atoms, xyz
    return MaskedMolecule(tokens, coords, np.concatenate([[False], chosen, [False]]))


def mask_batch(
    molecules: Sequence[TokenizedMolecule], masked: Sequence[MaskedMolecule], pad: int
) -> MaskedBatch:
    """Stack molecules and what was made of them, padded at the end."""
    shape = len(molecules), max(len(m.tokens) for m in molecules)
    tokens = np.full((2, *shape), pad, dtype=np.int64)
    coords = np.zeros((2, *shape, 3), dtype=np.float32)
    mask = np.zeros(shape, dtype=bool)
    for row, (true, spoiled) in enumerate(zip(molecules, masked, strict=True)):
        size = len(true.tokens)
        tokens[0, row, :size], tokens[1, row, :size] = spoiled.tokens, true.tokens
        coords[0, row, :size], coords[1, row, :size] = spoiled.coords, true.coords
        mask[row, :size] = spoiled.masked
    seen, true_tokens = torch.from_numpy(tokens)
    places, true_coords = torch.from_numpy(coords)
    return MaskedBatch(
        seen, places, torch.from_numpy(mask), true_tokens, true_coords, true_tokens.ne(pad)
    )
