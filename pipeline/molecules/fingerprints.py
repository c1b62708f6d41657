"""Fingerprints: what molecules are likened by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import Mol
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

RADIUS, BITS = 2, 2048
_ECFP4 = GetMorganGenerator(radius=RADIUS, fpSize=BITS)


def ecfp4_of(molecule: Mol) -> np.ndarray:
    """ECFP4 of a parsed molecule: 0 or 1, uint8 (BITS,)."""
    return _ECFP4.GetFingerprintAsNumPy(molecule)


def packed_ecfp4_of(molecule: Mol) -> bytes:
    """ECFP4 of a parsed molecule, eight bits a byte as by `np.packbits`: BITS / 8 bytes."""
    return np.packbits(ecfp4_of(molecule)).tobytes()


def ecfp4(smiles: Sequence[str]) -> np.ndarray:
    """ECFP4 of each molecule: 0 or 1, uint8 (n, BITS)."""
    prints = np.empty((len(smiles), BITS), np.uint8)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            prints[row] = ecfp4_of(Chem.MolFromSmiles(text))
    return prints


def packed_ecfp4(smiles: Sequence[str]) -> np.ndarray:
    """ECFP4 of each molecule, eight bits a byte as by `np.packbits`: uint8 (n, BITS / 8)."""
    packed = np.empty((len(smiles), BITS // 8), np.uint8)
    for start in range(0, len(smiles), 1024):  # unpacked, a million take 2 GB
        packed[start : start + 1024] = np.packbits(ecfp4(smiles[start : start + 1024]), axis=1)
    return packed
