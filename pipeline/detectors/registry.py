"""The registry of detectors: their names, their classes, and what they need."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import NamedTuple

from pipeline.detectors.base import Detector
from pipeline.runtime.errors import InputError

ENERGY_HEADS = ("dpo", "bce", "mse", "hinge")
"""Energy heads by their loss. `pipeline.training` trains them; they have no class here."""

# Each is imported only when it is asked for: scikit-learn and torch take seconds.
DETECTORS = {
    "mahalanobis": "pipeline.detectors.classical.gaussians:Mahalanobis",
    "knn": "pipeline.detectors.classical.neighbours:KNearest",
    "lof": "pipeline.detectors.classical.neighbours:LocalOutlierFactor",
    "isolation_forest": "pipeline.detectors.classical.isolation_forest:IsolationForest",
    "tanimoto": "pipeline.detectors.classical.neighbours:Tanimoto",
    "oe_mahalanobis": "pipeline.detectors.classical.gaussians:MahalanobisWithExposure",
    "oe_knn": "pipeline.detectors.classical.neighbours:KNearestWithExposure",
    "distance_lr": "pipeline.detectors.distance.distance_regression:DistanceRegression",
    "energy_oe": "pipeline.detectors.property_heads.property_detectors:EnergyWithExposure",
    "msp": "pipeline.detectors.property_heads.property_detectors:MaximumSoftmax",
    "odin": "pipeline.detectors.property_heads.property_detectors:Odin",
    "energy": "pipeline.detectors.property_heads.property_detectors:FreeEnergy",
    "mc_dropout": "pipeline.detectors.property_heads.property_detectors:MonteCarloDropout",
    "ensemble": "pipeline.detectors.property_heads.property_detectors:Ensemble",
}


class Needs(NamedTuple):
    """What a detector learns from, beside ID molecules."""

    ood: bool
    labels: bool


_WITH_OOD = {*ENERGY_HEADS, "oe_mahalanobis", "oe_knn", "distance_lr", "energy_oe"}
_WITH_LABELS = {"energy_oe", "msp", "odin", "energy", "mc_dropout", "ensemble"}

# Fitted to the same molecules these come out the same, whatever the seed.
_SEEDLESS = {"mahalanobis", "knn", "lof", "tanimoto", "oe_mahalanobis", "oe_knn"}


def depends_on_seed(name: str) -> bool:
    """Whether a detector, fitted to the same molecules, may differ between seeds."""
    return name not in _SEEDLESS


def needs(name: str) -> Needs:
    """What a detector or energy head needs; nothing is imported. InputError if there is none."""
    if name not in DETECTORS and name not in ENERGY_HEADS:
        raise InputError(_unknown(name))
    return Needs(name in _WITH_OOD, name in _WITH_LABELS)


def detector_class(name: str) -> type[Detector]:
    """The class of a detector, by its registered name.

    Raises
    ------
    InputError
        If no detector has that name, or it is an energy head, which is trained otherwise.
    """
    if name in ENERGY_HEADS:
        raise InputError(f"{name!r} is an energy head, which has no class; jobs.train trains it")
    if name not in DETECTORS:
        raise InputError(_unknown(name))
    return resolve_name(DETECTORS[name])


def _unknown(name: str) -> str:
    return f"no detector is called {name!r}; there are: {', '.join([*ENERGY_HEADS, *DETECTORS])}"
