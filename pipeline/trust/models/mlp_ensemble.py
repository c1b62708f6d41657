"""A property model: five small networks on the encoders' features, whose spread tells how unsure.

Deep ensembles (Lakshminarayanan et al., NeurIPS 2017): the members differ in their first weights
and in the order of their molecules. All are trained at once, as one batched product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.trust.described import Described

MEMBERS, HIDDEN, EPOCHS, BATCH = 5, (64, 32), 30, 128
RATE, DECAY, DROPOUT = 4e-3, 1e-2, 0.2


@dataclass(frozen=True)
class MlpEnsemble:
    """`MEMBERS` networks: width → 64 → 32 → 1, ReLU.

    Attributes
    ----------
    layers : weights (members, in, out) and biases (members, 1, out), float32, in turn.
    mean, deviation : of the labels that it was trained on.
    binary : whether outputs are logits of 0/1 labels.
    """

    layers: list[np.ndarray]
    mean: float
    deviation: float
    binary: bool

    @classmethod
    def fit(
        cls, known: Described, labels: np.ndarray, *, binary: bool, seed: int, jobs: int | None,
        light: bool = False,
    ) -> MlpEnsemble:  # fmt: skip
        """Fit to labels (n,); `light` changes nothing, and the views of an encoder are needed."""
        features = known.features()
        mean, deviation = (0.0, 1.0) if binary else (labels.mean(), labels.std() or 1.0)
        layers = _trained(features, (labels - mean) / deviation, binary, seed)
        return cls(layers, float(mean), float(deviation), binary)

    def predict(self, asked: Described) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the members, float64 (n,) each."""
        hidden = np.broadcast_to(asked.features(), (MEMBERS, len(asked), self.layers[0].shape[1]))
        for at in range(0, len(self.layers), 2):
            hidden = hidden @ self.layers[at] + self.layers[at + 1]
            if at + 2 < len(self.layers):
                hidden = np.maximum(hidden, 0)
        each = hidden[..., 0].astype(float)
        each = 1 / (1 + np.exp(-each)) if self.binary else self.mean + self.deviation * each
        return each.mean(axis=0), each.std(axis=0)

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and what else decides predictions, ready for JSON."""
        numbers = {name: getattr(self, name) for name in ("mean", "deviation", "binary")}
        return {f"layer_{at}": layer for at, layer in enumerate(self.layers)}, numbers

    @classmethod
    def load(
        cls, arrays: Mapping[str, np.ndarray], more: dict[str, Any], known: Described
    ) -> MlpEnsemble:
        """The inverse of `save`; `known` are the molecules it was fitted to."""
        return cls([arrays[f"layer_{at}"] for at in range(len(arrays))], **more)


def _trained(features: np.ndarray, labels: np.ndarray, binary: bool, seed: int) -> list[np.ndarray]:
    """The members' layers after training by AdamW, its rate falling along a cosine."""
    import torch
    import torch.nn.functional as F

    from pipeline.runtime.train.optimizers import AdamW  # imports torch

    random = torch.Generator().manual_seed(seed)
    widths = [features.shape[1], *HIDDEN, 1]
    layers = []
    for into, out in zip(widths, widths[1:]):
        bound = (6 / into) ** 0.5 if out != 1 else (1 / into) ** 0.5
        weights = torch.rand(MEMBERS, into, out, generator=random) * 2 * bound - bound
        layers += [weights, torch.zeros(MEMBERS, 1, out)]
    layers = [layer.requires_grad_() for layer in layers]
    x, y = torch.from_numpy(features), torch.from_numpy(np.asarray(labels, np.float32))
    optimizer = AdamW(layers, RATE, weight_decay=DECAY, fused=True)
    steps = -(-len(x) // BATCH)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    for _ in range(EPOCHS):
        orders = torch.stack([torch.randperm(len(x), generator=random) for _ in range(MEMBERS)])
        for rows in orders.split(BATCH, dim=1):
            hidden = x[rows]
            for at in range(0, len(layers), 2):
                hidden = torch.baddbmm(layers[at + 1], hidden, layers[at])
                if at + 2 < len(layers):
                    kept = torch.empty_like(hidden).bernoulli_(1 - DROPOUT, generator=random)
                    hidden = F.relu(hidden) * kept / (1 - DROPOUT)
            said = hidden[..., 0]
            loss = F.binary_cross_entropy_with_logits if binary else F.mse_loss
            optimizer.zero_grad()
            (MEMBERS * loss(said, y[rows])).backward()
            optimizer.step()
            falling.step()
    return [layer.detach().numpy() for layer in layers]
