"""ECFP4 fingerprints (Rogers and Hahn, 2010) by RDKit as features."""

from __future__ import annotations

import numpy as np
from rdkit.Chem import Mol

from pipeline.encoders.rdkit_encoder import RdkitEncoder
from pipeline.molecules.features.fingerprints import BITS, RADIUS, ecfp4_of


class EcfpEncoder(RdkitEncoder):
    """2048 features of 0 and 1: which circular substructures of up to 4 bonds across are there."""

    name = "ecfp"
    dim = BITS
    RECIPE = {"code_version": 1, "radius": RADIUS, "bits": BITS}

    def features_of(self, molecule: Mol) -> np.ndarray:
        """Bits (2048,) uint8 of a molecule."""
        return ecfp4_of(molecule)
