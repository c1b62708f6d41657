"""The losses of the energy head. Energy is the OOD score: higher means more OOD.

Energy-DPO follows arXiv:2509.25509; the other losses are its ablations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.detectors.settings import DetectorSettings

NEAR_BOUNDARY = 0.05


def margins(id_energy: Tensor, ood_energy: Tensor) -> Tensor:
    """ΔE = E_ood − E_id of every pair, (n_id, n_ood); positive where the pair is ranked right."""
    return ood_energy.unsqueeze(0) - id_energy.unsqueeze(1)


def dpo_loss(id_energy: Tensor, ood_energy: Tensor, settings: DetectorSettings) -> Tensor:
    """Mean softplus(−β ΔE) over all pairs."""
    return F.softplus(-settings.dpo_beta * margins(id_energy, ood_energy)).mean()


def bce_loss(id_energy: Tensor, ood_energy: Tensor, settings: DetectorSettings) -> Tensor:
    """Binary cross-entropy with the energy as the logit of being OOD."""
    return F.binary_cross_entropy_with_logits(*_labelled(id_energy, ood_energy))


def mse_loss(id_energy: Tensor, ood_energy: Tensor, settings: DetectorSettings) -> Tensor:
    """Mean squared error of the sigmoid of the energy; OOD is 1."""
    energy, label = _labelled(id_energy, ood_energy)
    return F.mse_loss(torch.sigmoid(energy), label)


def hinge_loss(id_energy: Tensor, ood_energy: Tensor, settings: DetectorSettings) -> Tensor:
    """Mean max(0, m − ΔE) over all pairs, or over the hardest share of them; squared if asked."""
    hinge = F.relu(settings.hinge_margin - margins(id_energy, ood_energy)).flatten()
    if settings.hinge_topk < 1:
        hinge = hinge.topk(max(1, round(settings.hinge_topk * len(hinge)))).values
    return (hinge.square() if settings.hinge_squared else hinge).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor, DetectorSettings], Tensor]] = {
    "dpo": dpo_loss,
    "bce": bce_loss,
    "mse": mse_loss,
    "hinge": hinge_loss,
}


def training_loss(id_energy: Tensor, ood_energy: Tensor, settings: DetectorSettings) -> Tensor:
    """The chosen loss plus λ (mean E_id² + mean E_ood²), a scalar.

    Parameters
    ----------
    id_energy, ood_energy : (n_id,) and (n_ood,) energies of one global batch.
    """
    regularization = id_energy.square().mean() + ood_energy.square().mean()
    loss = LOSSES[settings.loss](id_energy, ood_energy, settings)
    return loss + settings.lambda_reg * regularization


def molecule_losses(
    id_energy: Tensor, ood_energy: Tensor, settings: DetectorSettings
) -> tuple[Tensor, Tensor]:
    """The chosen loss, without the λ term, as a share of each molecule: (n_id,) and (n_ood,).

    For dpo and hinge an ID molecule's is the mean over its pairs with all OOD molecules, and the
    other way round; `hinge_topk` then picks the hardest pairs of each molecule by itself. For bce
    and mse it is the molecule's own term.
    """
    if settings.loss in ("bce", "mse"):
        losses = {"bce": F.binary_cross_entropy_with_logits, "mse": _sigmoid_error}
        energy, label = _labelled(id_energy, ood_energy)
        return losses[settings.loss](energy, label, reduction="none").split(
            [len(id_energy), len(ood_energy)]
        )
    delta = margins(id_energy, ood_energy)
    if settings.loss == "dpo":
        pairs = F.softplus(-settings.dpo_beta * delta)
        return pairs.mean(dim=1), pairs.mean(dim=0)
    hinge = F.relu(settings.hinge_margin - delta)
    return tuple(_hinge_means(rows, settings) for rows in (hinge, hinge.T))


def _hinge_means(hinge: Tensor, settings: DetectorSettings) -> Tensor:
    """Mean of each row, or of its hardest share."""
    if settings.hinge_topk < 1:
        hinge = hinge.topk(max(1, round(settings.hinge_topk * hinge.shape[1])), dim=1).values
    return (hinge.square() if settings.hinge_squared else hinge).mean(dim=1)


def _sigmoid_error(energy: Tensor, label: Tensor, reduction: str) -> Tensor:
    return F.mse_loss(torch.sigmoid(energy), label, reduction=reduction)


def _labelled(id_energy: Tensor, ood_energy: Tensor) -> tuple[Tensor, Tensor]:
    energy = torch.cat([id_energy, ood_energy])
    return energy, torch.cat([torch.zeros_like(id_energy), torch.ones_like(ood_energy)])


def pair_dynamics(id_energy: Tensor, ood_energy: Tensor) -> dict[str, float]:
    """How a batch's pairs stand: shares misranked and near the boundary, and the mean margin.

    Counted by ranks in float64: n log n steps in place of all pairs.
    """
    ids, oods = id_energy.detach().double().sort().values, ood_energy.detach().double()

    def count_below(bound: Tensor, or_equal: bool) -> int:
        return int(torch.searchsorted(ids, bound, right=or_equal).sum())

    pairs = len(ids) * len(oods)
    near = count_below(oods + NEAR_BOUNDARY, False) - count_below(oods - NEAR_BOUNDARY, True)
    return {
        "misranked_share": 1 - count_below(oods, True) / pairs,
        "near_boundary_share": near / pairs,
        "mean_margin": (oods.mean() - ids.mean()).item(),
    }
