"""The network: noisy features, step and class → velocity or noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LONGEST_PERIOD = 10_000.0  # of the sines that tell the step, in steps


class Block(nn.Module):
    """x + W₂ silu(W₁ norm(x) + context)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Of x (n, width) and context (n, width) or (width,)."""
        return x + self.down(nn.functional.silu(self.up(self.norm(x)) + context))


class Denoiser(nn.Module):
    """A residual MLP with sinusoidal embedding of the step and a learned one of the class.

    Parameters
    ----------
    columns : of the features.
    classes : their number; class `classes` means any.
    """

    def __init__(self, columns: int, classes: int, width: int, blocks: int):
        super().__init__()
        self.inward = nn.Linear(columns, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(classes + 1, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, columns)
        nn.init.zeros_(self.outward.weight)  # training starts from "predict zero"
        nn.init.zeros_(self.outward.bias)

    @property
    def any_class(self) -> int:
        """The class of a row whose class is hidden."""
        return self.classes.num_embeddings - 1

    def times(self, steps: Tensor) -> Tensor:
        """What the network knows of steps (n,): (n, width)."""
        return self.time(sinusoids(steps, self.time[0].in_features).to(self.time[0].weight.dtype))

    def forward(self, noisy: Tensor, steps: Tensor, classes: Tensor) -> Tensor:
        """Of noisy features (n, columns) at steps (n,) of classes (n,): (n, columns)."""
        return self.denoise(noisy, self.times(steps) + self.classes(classes))

    def denoise(self, noisy: Tensor, context: Tensor) -> Tensor:
        """As `forward`, of the sum (n, width) of what `times` and `classes` give."""
        x = self.inward(noisy)
        for block in self.blocks:
            x = block(x, context)
        return self.outward(self.norm(x))


def sinusoids(steps: Tensor, width: int) -> Tensor:
    """Sines and cosines (n, width) float32 of steps (n,); Vaswani et al. 2017, section 3.5."""
    half = width // 2
    rates = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half, device=steps.device) / half)
    angles = steps.float()[:, None] * rates
    padding = torch.zeros(len(steps), width - 2 * half, device=steps.device)
    return torch.cat([angles.sin(), angles.cos(), padding], dim=1)
