"""Settings of detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.runtime.settings import Settings, bounded


@dataclass(frozen=True, kw_only=True)
class EnergyHeadSettings(Settings):
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
    group_weights: Literal["none", "dro"] = "none"
    """dro: domains on which the loss is high weigh more (group DRO)."""
    group_step: float = bounded(0.01, above=0)
    """Step by which the domains' weights follow their losses."""
    hidden_dim: int = bounded(256, least=2)
    """Width of the head's first hidden layer; the second is half of it."""
    dropout: float = bounded(0.1, least=0, below=1)
    """Dropout in the head."""


@dataclass(frozen=True, kw_only=True)
class NeighbourSettings(Settings):
    """Detectors by neighbours and by isolation: no network is trained."""

    knn_k: int = bounded(50, least=1)
    """knn, oe_knn: the distance is that to the k-th nearest training molecule."""
    lof_neighbours: int = bounded(20, least=1)
    """lof: neighbours over which densities are taken."""
    isolation_trees: int = bounded(100, least=1)
    """isolation_forest: trees."""


@dataclass(frozen=True, kw_only=True)
class PropertyHeadSettings(Settings):
    """Detectors on a network that predicts the labels: msp, odin, energy, mc_dropout, ensemble,
    energy_oe."""

    property_dropout: float = bounded(0.5, least=0, below=1)
    """Dropout in the network of three hidden layers of 64."""
    property_lr: float = bounded(0.01, above=0)
    """Learning rate of Adam."""
    property_weight_decay: float = bounded(5e-4, least=0)
    """Weight decay of Adam."""
    property_patience: int = bounded(30, least=1)
    """Epochs without a better validation loss before training stops."""
    odin_temperature: float = bounded(1000.0, above=0)
    """odin: temperature of the softmax."""
    odin_epsilon: float = bounded(0.0014, least=0)
    """odin: step by which each (standardised) feature is moved towards a more certain answer."""
    mc_passes: int = bounded(20, least=2)
    """mc_dropout: passes, each with a dropout mask of its own."""
    ensemble_size: int = bounded(5, least=2)
    """ensemble: networks."""
    exposure_weight: float = bounded(0.1, least=0)
    """energy_oe: weight of the squared hinges on the energies."""
    exposure_margin_id: float = -23.0
    """energy_oe: energies of ID molecules above this cost."""
    exposure_margin_ood: float = -5.0
    """energy_oe: energies of OOD molecules below this cost."""


@dataclass(frozen=True, kw_only=True)
class DetectorSettings(EnergyHeadSettings, NeighbourSettings, PropertyHeadSettings):
    """Every detector's settings; those of other detectors than the chosen one have no effect."""
