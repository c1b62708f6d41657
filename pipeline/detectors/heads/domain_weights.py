"""Group DRO: training weighs the domains on which the loss is high more.

Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, 2020, algorithm 1. ID and
OOD domains have weights of their own, each adding up to 1, so that a single OOD domain (an outlier
set, say) is not outvoted by many ID domains.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.detectors.heads.losses import molecule_losses
from pipeline.detectors.settings import DetectorSettings


class DomainWeights:
    """Weights of the domains of one kind, equal at first.

    Attributes
    ----------
    log_weights : (domains,) float64 on the CPU; all there is to keep for a run that resumes.
    """

    def __init__(self, domains: int, step: float):
        self.step = step
        self.log_weights = torch.zeros(domains, dtype=torch.float64).log_softmax(dim=0)

    @property
    def weights(self) -> Tensor:
        """(domains,) float64, adding up to 1."""
        return self.log_weights.exp()

    def weighted(self, losses: Tensor, domains: Tensor) -> Tensor:
        """Move the weights by a batch, then the weighted sum of its domains' mean losses, a scalar.

        Each weight is multiplied by exp(step x mean loss of its domain); a domain that the batch
        lacks counts as a loss of 0.

        Parameters
        ----------
        losses, domains : (n,) losses and domain numbers (int64) of the molecules.
        """
        n = len(self.log_weights)
        counts = torch.bincount(domains, minlength=n)
        sums = losses.new_zeros(n).index_add(0, domains, losses)
        means = sums / counts.clamp(min=1)
        moved = self.log_weights + self.step * means.detach().double().cpu()
        self.log_weights = moved.log_softmax(dim=0)
        return (self.weights.to(means) * means).sum()


def robust_loss(
    id_energy: Tensor,
    ood_energy: Tensor,
    id_domains: Tensor,
    ood_domains: Tensor,
    weights: tuple[DomainWeights, DomainWeights],
    settings: DetectorSettings,
) -> Tensor:
    """`training_loss` with its molecules weighed by domain, a scalar; moves the weights.

    The mean of the ID and the OOD molecules' weighted losses, plus the λ term as it is. With one
    domain of each kind, and as many molecules, it is `training_loss` without hinge_topk.

    Parameters
    ----------
    id_energy, ood_energy : (n_id,) and (n_ood,) energies of one global batch.
    id_domains, ood_domains : (n_id,) and (n_ood,) int64, on the energies' device.
    weights : of ID and of OOD domains.
    """
    losses = molecule_losses(id_energy, ood_energy, settings)
    of_id, of_ood = (
        kind.weighted(loss, domains)
        for kind, loss, domains in zip(weights, losses, (id_domains, ood_domains))
    )
    regularization = id_energy.square().mean() + ood_energy.square().mean()
    return 0.5 * (of_id + of_ood) + settings.lambda_reg * regularization
