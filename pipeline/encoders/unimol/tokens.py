"""Uni-Mol's input: atom types as tokens, and how a conformer becomes tensors.

Follows `unimol_tools.data.conformer.coords2unimol` (MIT): coordinates are centred on
their mean, [CLS] and [SEP] sit at the origin, and molecules above `max_atoms` keep a
random subset of atoms. Here that subset is seeded, so it never changes between runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
ELEMENTS = {
    "C": 6, "N": 7, "O": 8, "S": 16, "H": 1, "Cl": 17, "F": 9, "Br": 35, "I": 53,
    "Si": 14, "P": 15, "B": 5, "Na": 11, "K": 19, "Al": 13, "Ca": 20, "Sn": 50,
    "As": 33, "Hg": 80, "Fe": 26, "Zn": 30, "Cr": 24, "Se": 34, "Gd": 64, "Au": 79,
    "Li": 3,
}  # fmt: skip
MASK = "[MASK]"

DEFAULT_MAX_ATOMS = 256
CROP_SEED = 42


class Vocabulary:
    """Token ids of one checkpoint: four special tokens, the elements, then [MASK].

    Parameters
    ----------
    special : sequence of str
        The four special tokens in the order of the checkpoint's embedding rows.
    """

    def __init__(self, special: Sequence[str] = SPECIAL):
        self.symbols = (*special, *ELEMENTS, MASK)
        index = {symbol: i for i, symbol in enumerate(self.symbols)}
        self.pad, self.cls, self.sep, self.unk = (index[s] for s in SPECIAL)
        self.mask = index[MASK]
        self._by_symbol = {symbol: index[symbol] for symbol in ELEMENTS}
        self._by_number = np.full(256, self.unk, dtype=np.int64)
        for symbol, number in ELEMENTS.items():
            self._by_number[number] = index[symbol]

    def __len__(self) -> int:
        return len(self.symbols)

    def atoms(self, atoms: Sequence[str] | np.ndarray) -> np.ndarray:
        """Token ids, shape (N,) int64, of element symbols or of atomic numbers.

        Elements outside the dictionary become [UNK], as in Uni-Mol.
        """
        array = np.asarray(atoms)
        if array.dtype.kind in "ui":
            return self._by_number[array]
        return np.array([self._by_symbol.get(str(s), self.unk) for s in atoms], dtype=np.int64)


# Row orders of the special tokens that exist in the wild. "official" is the order of
# mol.dict.txt, with which the published weights were trained (Uni-Core reads the file in
# order). unimol_tools 0.1.6 numbers the special tokens before it reads the file; checkpoints
# that it pretrains carry that order.
TOKEN_ORDERS = {
    "official": SPECIAL,
    "unimol_tools": ("[CLS]", "[UNK]", "[PAD]", "[SEP]"),
}


class TokenizedMolecule(NamedTuple):
    """tokens: (N+2,) int64 with [CLS] first and [SEP] last; coords: (N+2, 3) float32, Å."""

    tokens: np.ndarray
    coords: np.ndarray


def tokenize(
    atoms: Sequence[str] | np.ndarray,
    coords: np.ndarray,
    vocabulary: Vocabulary,
    *,
    keep_hydrogens: bool = False,
    max_atoms: int = DEFAULT_MAX_ATOMS,
) -> TokenizedMolecule:
    """Turn one conformer into Uni-Mol's tokens and centred coordinates.

    Parameters
    ----------
    atoms : N element symbols or atomic numbers.
    coords : (N, 3) array, Å.
    keep_hydrogens : whether the weights were trained with hydrogens.
    max_atoms : molecules above it are cropped to a seeded random subset of atoms.

    Raises
    ------
    ValueError
        If the shapes disagree, a coordinate is not finite, or no atom is left.
    """
    numbers_or_symbols = np.asarray(atoms)
    xyz = np.asarray(coords, dtype=np.float32)
    if xyz.shape != (len(numbers_or_symbols), 3):
        raise ValueError(
            f"coordinates have shape {xyz.shape}, expected ({len(numbers_or_symbols)}, 3)"
        )
    if not np.isfinite(xyz).all():
        raise ValueError("coordinates are not finite")
    if not keep_hydrogens:
        hydrogen = 1 if numbers_or_symbols.dtype.kind in "ui" else "H"
        heavy = numbers_or_symbols != hydrogen
        numbers_or_symbols, xyz = numbers_or_symbols[heavy], xyz[heavy]
    if len(xyz) == 0:
        raise ValueError("no atoms left after removing hydrogens")
    if len(xyz) > max_atoms:
        kept = np.random.RandomState(CROP_SEED).choice(len(xyz), max_atoms, replace=False)
        numbers_or_symbols, xyz = numbers_or_symbols[kept], xyz[kept]
    tokens = np.concatenate(
        [[vocabulary.cls], vocabulary.atoms(numbers_or_symbols), [vocabulary.sep]]
    )
    padded = np.zeros((len(tokens), 3), dtype=np.float32)
    padded[1:-1] = xyz - xyz.mean(axis=0)
    return TokenizedMolecule(tokens.astype(np.int64), padded)
