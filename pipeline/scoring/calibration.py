"""Conformal p-values from the energies of in-distribution molecules.

Higher energies mean more OOD, as all scores of MolSieve do, and the p-value of a molecule falls
with its energy: few ID molecules are as far out. The published conformal baseline that Energy-DPO
was compared with (arXiv:2509.25509) has this sign reversed; here it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
