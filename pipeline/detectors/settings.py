"""Settings of detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.runtime.settings import Settings, bounded


@dataclass(frozen=True, kw_only=True)
class DetectorSettings(Settings):
    """The energy head and its loss."""

    loss: Literal["dpo", "bce", "mse", "hinge"] = "dpo"
    """Training loss; dpo is Energy-DPO, the others are ablations."""
    dpo_beta: float = bounded(0.1, above=0)
    """Temperature of the Energy-DPO loss."""
    lambda_reg: float = bounded(0.01, least=0)
    """Weight of the mean squared energies in every loss."""
    hinge_margin: float = bounded(1.0, least=0)
    """Margin of the hinge loss."""
    hinge_topk: float = bounded(1.0, above=0)
    """Share of the hardest pairs that the hinge loss averages over (1: all)."""
    hinge_squared: bool = False
    """Square the hinge."""
    hidden_dim: int = bounded(256, least=2)
    """Width of the head's first hidden layer; the second is half of it."""
    dropout: float = bounded(0.1, least=0, below=1)
    """Dropout in the head."""
