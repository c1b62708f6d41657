"""Fingerprints: what molecules are likened by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

BITS = 2048
_ECFP4 = GetMorganGenerator(radius=2, fpSize=BITS)


def ecfp4(smiles: Sequence[str]) -> np.ndarray:
    """ECFP4 of each molecule: 0 or 1, uint8 (n, BITS)."""
    prints = np.empty((len(smiles), BITS), np.uint8)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            prints[row] = _ECFP4.GetFingerprintAsNumPy(Chem.MolFromSmiles(text))
    return prints
