"""Where test molecules stand among those of the other kind, by counting."""

from __future__ import annotations

import numpy as np


def placements(energies: np.ndarray, is_ood: np.ndarray) -> np.ndarray:
    """The share of molecules of the other kind on the right side of each, ties one half: (n,).

    Its mean over all ID, or over all OOD molecules is the AUROC, over some of them the AUROC of
    these against the other kind.
    """
    shares = np.full(len(energies), np.nan)
    for kind, sign in ((True, 1), (False, -1)):
        mine = is_ood == kind
        others = np.sort(sign * energies[~mine])
        if len(others):
            own = sign * energies[mine]
            below = np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")
            shares[mine] = below / (2 * len(others))
    return shares


def leave_one_out_p_values(energies: np.ndarray, is_ood: np.ndarray) -> np.ndarray:
    """Conformal p-values (n,) by the ID molecules, an ID molecule by the others of them.

    As of `pipeline.evaluation.calibration`, which has the source.
    """
    known = np.sort(energies[~is_ood])
    farther = len(known) - np.searchsorted(known, energies, "left")  # itself among them, if ID
    return np.where(is_ood, (1 + farther) / (len(known) + 1), farther / max(1, len(known)))
