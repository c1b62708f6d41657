"""The energy head, a small network over features. A higher energy means more OOD."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class EnergyHead(nn.Module):
    """Features (n, width) to energies (n,): width → hidden → hidden/2 → 1, ReLU and dropout.

    Features are taken as they are, unless `standardise` was called.
    """

    def __init__(self, width: int, hidden_dim: int = 256, dropout: float = 0.1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, hidden_dim // 2),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim // 2, 1),
        )
        # Constants, which the checkpoint keeps with its feature space.
        self.register_buffer("mean", torch.zeros(()), persistent=False)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def standardise(self, mean: np.ndarray, scale: np.ndarray) -> None:
        """Take features less a mean (width,), over a deviation (width,), from now on."""
        for name, value in (("mean", mean), ("scale", scale)):
            self.register_buffer(name, torch.from_numpy(value).to(self.mean), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Energies (n,) of features (n, width)."""
        return self.layers((features - self.mean) / self.scale).squeeze(-1)


@torch.inference_mode()
def energies_of(
    head: EnergyHead, features: np.ndarray, *, batch_size: int = 2048, device: str = "cpu"
) -> np.ndarray:
    """Energies (n,) float32 of features (n, width)."""
    head = head.eval().to(device)
    parts = torch.from_numpy(features).float().split(batch_size)
    return np.concatenate([head(part.to(device)).cpu().numpy() for part in parts])
