"""Thirteen descriptors by RDKit as features."""

from __future__ import annotations

import numpy as np
from rdkit.Chem import Mol

from pipeline.encoders.rdkit_encoder import RdkitEncoder
from pipeline.molecules.features.descriptors import DESCRIPTORS
from pipeline.runtime.errors import RowRejected


class DescriptorEncoder(RdkitEncoder):
    """The `DESCRIPTORS`, in that order and as they are: who trains on them standardises them."""

    name = "descriptors"
    dim = len(DESCRIPTORS)
    RECIPE = {"code_version": 1, "descriptors": list(DESCRIPTORS)}

    def features_of(self, molecule: Mol) -> np.ndarray:
        """Descriptors (13,) float64 of a molecule; RowRejected names one that it has not."""
        values = np.empty(self.dim)
        for place, (name, describe) in enumerate(DESCRIPTORS.items()):
            try:
                values[place] = describe(molecule)
            except Exception as error:  # RDKit raises bare and mixed exceptions
                reason = str(error).strip().splitlines() or [type(error).__name__]
                raise RowRejected(f"RDKit cannot compute {name}: {reason[0][:200]}") from None
            if not np.isfinite(values[place]):
                raise RowRejected(f"{name} is not finite: {values[place]}")
        return values
