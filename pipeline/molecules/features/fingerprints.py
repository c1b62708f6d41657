"""Fingerprints: what molecules are likened by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import Mol
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from pipeline.molecules.features import kmers
from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind

RADIUS, BITS = 2, 2048
_ECFP4 = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
AT_ONCE = 1024  # packed at a time: unpacked, a million take 2 GB


def ecfp4_of(molecule: Mol) -> np.ndarray:
    """ECFP4 of a parsed molecule: 0 or 1, uint8 (BITS,)."""
    return _ECFP4.GetFingerprintAsNumPy(molecule)


def packed_ecfp4_of(molecule: Mol) -> bytes:
    """ECFP4 of a parsed molecule, eight bits a byte as by `np.packbits`: BITS / 8 bytes."""
    return np.packbits(ecfp4_of(molecule)).tobytes()


def packed_kmers_of(sequence: str) -> bytes:
    """K-mers of a sequence (see `kmers`), eight bits a byte as by `np.packbits`: 1,053 bytes."""
    return np.packbits(kmers.kmers_of(sequence)).tobytes()


def ecfp4(smiles: Sequence[str]) -> np.ndarray:
    """ECFP4 of each molecule: 0 or 1, uint8 (n, BITS)."""
    prints = np.empty((len(smiles), BITS), np.uint8)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            prints[row] = ecfp4_of(Chem.MolFromSmiles(text))
    return prints


def fingerprints(texts: Sequence[str], kind: Kind) -> np.ndarray:
    """Each molecule's fingerprint: 0 or 1, uint8 (n, bits).

    Parameters
    ----------
    texts : canonical SMILES, for ECFP4 of 2,048 bits; or sequences, for k-mers of 8,420.
    """
    if kind != SEQUENCE:
        return ecfp4(texts)
    prints = np.empty((len(texts), kmers.BITS), np.uint8)
    for row, text in enumerate(texts):
        prints[row] = kmers.kmers_of(text)
    return prints


def packed_fingerprints(texts: Sequence[str], kind: Kind) -> np.ndarray:
    """As `fingerprints`, eight bits a byte as by `np.packbits`: uint8 (n, 256) or (n, 1053)."""
    bits = kmers.BITS if kind == SEQUENCE else BITS
    packed = np.empty((len(texts), -(-bits // 8)), np.uint8)
    for start in range(0, len(texts), AT_ONCE):
        part = fingerprints(texts[start : start + AT_ONCE], kind)
        packed[start : start + AT_ONCE] = np.packbits(part, axis=1)
    return packed


def packed_ecfp4(smiles: Sequence[str]) -> np.ndarray:
    """ECFP4 of each molecule, eight bits a byte as by `np.packbits`: uint8 (n, BITS / 8)."""
    return packed_fingerprints(smiles, SMILES)
