"""What a classifier learns from: real training rows, and what a method does for the rare class.

All methods that add rows add equally many, so that the rare class has the share that is asked for;
what the gate refuses stays missing. A method never sees a row of validation or test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.generation.measures import CONTROLS
from pipeline.generation.packages import package

PLAIN = "nothing"
GENERATED, UNGATED = "generated", "generated_ungated"
NEIGHBOURS = 5  # of SMOTE


@dataclass(frozen=True)
class Training:
    """Real training rows, and what a generator made of them.

    Attributes
    ----------
    features : standardised (n, d) float32.
    is_rare : (n,) bool.
    wanted : rows to add.
    generated : by method and seed, standardised features (at most `wanted`, d).
    """

    features: np.ndarray
    is_rare: np.ndarray
    wanted: int
    generated: Mapping[str, Mapping[int, np.ndarray]]


class Rows(NamedTuple):
    """Features (m, d) float32, whether each is rare (m,) bool, and weights (m,) of mean 1."""

    features: np.ndarray
    is_rare: np.ndarray
    weights: np.ndarray


def wanted_rows(is_rare: np.ndarray, share: float) -> int:
    """Rows that the rare class needs more, to be that share of all."""
    rare = int(is_rare.sum())
    return max(0, int(np.ceil(share / (1 - share) * (len(is_rare) - rare) - 1e-9)) - rare)


def nothing(training: Training, seed: int) -> Rows:
    """The real rows."""
    return _with(training, training.features[:0])


def class_weights(training: Training, seed: int) -> Rows:
    """The real rows; the rare ones weigh as if `wanted` were added, copied evenly."""
    rare = int(training.is_rare.sum())
    weights = np.where(training.is_rare, (rare + training.wanted) / rare, 1.0)
    return Rows(training.features, training.is_rare, weights / weights.mean())


def oversampling(training: Training, seed: int) -> Rows:
    """Copies of rare rows, drawn at random."""
    rare = np.flatnonzero(training.is_rare)
    drawn = np.random.default_rng([seed, len(rare)]).choice(rare, training.wanted)
    return _with(training, training.features[drawn])


def smote(training: Training, seed: int) -> Rows:
    """Rows between rare rows and their neighbours, by imbalanced-learn (Chawla et al. 2002)."""
    rare = int(training.is_rare.sum())
    if not training.wanted:
        return nothing(training, seed)
    sampler = smote_class()(
        sampling_strategy={1: rare + training.wanted}, k_neighbors=min(NEIGHBOURS, rare - 1),
        random_state=seed % 2**32,
    )  # fmt: skip
    features, classes = sampler.fit_resample(training.features, training.is_rare.astype(int))
    return Rows(features.astype(np.float32), classes == 1, np.ones(len(classes)))


def gaussian(training: Training, seed: int) -> Rows:
    """Draws from a Gaussian of the rare rows, its covariance shrunk by Ledoit and Wolf."""
    rare = training.features[training.is_rare]
    return _with(training, CONTROLS["gaussian"](rare, training.wanted, seed))


def generated(training: Training, seed: int) -> Rows:
    """Samples of the diffusion model that the gate let pass."""
    return _with(training, training.generated[GENERATED][seed])


def generated_ungated(training: Training, seed: int) -> Rows:
    """Samples of the diffusion model as they were drawn."""
    return _with(training, training.generated[UNGATED][seed])


METHODS: dict[str, Callable[[Training, int], Rows]] = {
    PLAIN: nothing,
    "class_weights": class_weights,
    "oversampling": oversampling,
    "smote": smote,
    "gaussian": gaussian,
    GENERATED: generated,
    UNGATED: generated_ungated,
}
OF_A_GENERATOR = (GENERATED, UNGATED)


def smote_class() -> type:
    """SMOTE of imbalanced-learn. InputError if that is not installed."""
    return package("imblearn.over_sampling").SMOTE


def _with(training: Training, added: np.ndarray) -> Rows:
    """The real rows and rare ones (k, d)."""
    return Rows(
        np.concatenate([training.features, added.astype(np.float32)]),
        np.concatenate([training.is_rare, np.ones(len(added), bool)]),
        np.ones(len(training.features) + len(added)),
    )
