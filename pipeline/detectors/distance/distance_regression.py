"""Logistic regression on distances to the ID training molecules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pipeline.detectors.base import Inputs
from pipeline.detectors.distance.distances import TrainingDistances
from pipeline.detectors.kept import KeptDetector, Training


@dataclass(frozen=True)
class DistanceRegression(KeptDetector):
    """Score: the log odds of being OOD, linear in the standardised distances.

    ID training molecules are measured as if they were new (leave-one-out); the two kinds weigh the
    same however many there are of each. scikit-learn fits.
    """

    name: ClassVar[str] = "distance_lr"
    needs_ood: ClassVar[bool] = True
    distances: TrainingDistances | None = None

    @classmethod
    def _fitted(cls, training: Training) -> Self:
        """The regression, and the molecules that distances are measured to."""
        from sklearn.linear_model import LogisticRegression

        distances = TrainingDistances.fit(training.id_train, training.seed)
        x = np.concatenate([distances.of(training.id_train), distances.of(training.ood_train)])
        is_ood = np.repeat([0, 1], [len(training.id_train), len(training.ood_train)])
        mean, spread = x.mean(axis=0), x.std(axis=0)
        scale = np.where(spread > 1e-9 * np.abs(mean), spread, 1.0)  # constants stay at 0
        model = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=10_000)
        model.fit((x - mean) / scale, is_ood)
        coefficients = model.coef_[0] / scale
        return cls(
            {"coefficients": coefficients},
            {"intercept": float(model.intercept_[0] - mean @ coefficients),
             "distances": list(distances.names)},
            distances,
        )  # fmt: skip

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Log odds (n,) float64."""
        return self.distances.of(inputs) @ self.arrays["coefficients"] + self.numbers["intercept"]

    def save(self) -> dict[str, bytes]:
        """The coefficients and the molecules that distances are measured to."""
        return {**super().save(), **self.distances.save()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        """What `save` gave."""
        kept = super().load(files)
        return cls(kept.arrays, kept.numbers, TrainingDistances.load(files))
