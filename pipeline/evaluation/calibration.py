"""Conformal p-values from the energies of in-distribution molecules.

Higher energies mean more OOD, as all scores of MolSieve do, and the p-value of a molecule falls
with its energy: few ID molecules are as far out. The published conformal baseline that Energy-DPO
was compared with (arXiv:2509.25509) has this sign reversed; here it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.runtime.errors import InputError

if TYPE_CHECKING:
    from pipeline.training.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True)
class Calibration:
    """Energies of in-distribution molecules that training did not see, (n,) in rising order."""

    energies: np.ndarray

    def p_values(self, energies: np.ndarray) -> np.ndarray:
        """Conformal p-values (m,): the share of ID molecules at least as far out.

        (1 + #{calibration energies ≥ energy}) / (n + 1), which for an exchangeable ID molecule
        is at most α with probability at most α. Source: Vovk et al., Algorithmic Learning in a
        Random World, 2005; Bates et al., Testing for Outliers with Conformal p-values, 2023.
        """
        n = len(self.energies)
        farther = n - np.searchsorted(self.energies, energies, side="left")
        return (1 + farther) / (n + 1)

    def threshold(self, alpha: float) -> float:
        """The energy above which a p-value is at most α; infinite if no p-value can be."""
        n = len(self.energies)
        allowed = int(np.floor(alpha * (n + 1) * (1 + 1e-12))) - 1
        return float(self.energies[n - 1 - allowed]) if allowed >= 0 else float("inf")


def held_out(checkpoint: Checkpoint) -> tuple[pa.Table, str]:
    """ID molecules that training did not fit by, which calibrate, and their role.

    They are those that nothing was chosen by either, or, where the checkpoint has none, those of
    validation.

    Raises
    ------
    InputError
        If the checkpoint is of a version that did not keep their SMILES.
    """
    if "smiles" not in checkpoint.molecules.column_names:
        raise InputError(
            "the checkpoint does not hold its validation molecules' SMILES, by which scores are "
            "calibrated; train again with this version"
        )
    role = "id_cal" if checkpoint.of_role("id_cal").num_rows else "id_val"
    return checkpoint.of_role(role), role
