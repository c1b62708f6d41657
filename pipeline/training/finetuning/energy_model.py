"""Energies straight from molecules: the encoder's trained layers and the head, as one model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline.detectors.heads.energy_head import EnergyHead
from pipeline.encoders.unimol.batching import Budget, plan_batches
from pipeline.encoders.unimol.finetuning.top import Top
from pipeline.encoders.unimol.finetuning.trunk import Rows
from pipeline.encoders.unimol.precision import autocast


class EnergyModel(nn.Module):
    """Rows of the trunk to energies.

    A batch is cut by length into micro-batches, so that molecules of any mix of sizes waste
    little padding; the batch's molecules, and so the loss, stay what they are.

    Parameters
    ----------
    budget : what a micro-batch may hold.
    dtype : of the encoder's matrix products; the head works in float32.
    checkpointing : keep no activations of the encoder's layers; compute them again for the
        gradient.
    """

    def __init__(
        self, top: Top, head: EnergyHead, budget: Budget, dtype: torch.dtype, checkpointing: bool
    ):
        super().__init__()
        self.top, self.head = top, head
        self.budget, self.dtype, self.checkpointing = budget, dtype, checkpointing

    def forward(self, rows: Rows) -> Tensor:
        """Energies (n,) float32."""
        return self.head(self.features(rows))

    def features(self, rows: Rows) -> Tensor:
        """Features (n, width) float32, in the order of the rows."""
        device = self.head.layers[0].weight.device
        batches = plan_batches(rows.lengths, self.budget)
        made = [self._features(*rows.padded(batch, device)) for batch in batches]
        if not made:
            return torch.zeros((0, self.top.width), device=device)
        order = torch.from_numpy(np.argsort(np.concatenate(batches)))
        return torch.cat(made)[order.to(device)]

    def _features(self, first: Tensor, second: Tensor) -> Tensor:
        with autocast(first.device, self.dtype):
            if self.checkpointing and self.training and torch.is_grad_enabled():
                made = checkpoint(self.top, first, second, use_reentrant=False)
            else:
                made = self.top(first, second)
        return made.float()
