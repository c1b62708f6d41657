"""Detectors by the nearest training molecules; an ID training molecule leaves itself out."""

from __future__ import annotations

import logging
from typing import ClassVar, Self

import numpy as np

from pipeline.detectors.base import Inputs, check_width
from pipeline.detectors.distance.feature_distances import nearest_features
from pipeline.detectors.kept import KeptDetector, Training
from pipeline.molecules.features.neighbours import nearest

log = logging.getLogger(__name__)


class KNearest(KeptDetector):
    """Score: Euclidean distance to the k-th nearest ID training molecule.

    Ramaswamy et al., Efficient Algorithms for Mining Outliers, 2000; for OOD detection Sun et al.,
    Out-of-Distribution Detection with Deep Nearest Neighbors, 2022 (they normalise features, which
    is not done here).
    """

    name: ClassVar[str] = "knn"

    @classmethod
    def _fitted(cls, training: Training) -> Self:
        """Keeps the ID molecules' features; k is `knn_k`, or n - 1 if that is less (logged)."""
        k = capped(
            training.settings.knn_k,
            len(training.id_train) - 1,
            "--knn_k",
            "other ID training molecules",
        )
        return cls({"id": training.id_train.features.astype(np.float32)}, {"k": k})

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Distances (n,) float64."""
        return _kth_distance(self, inputs, "id", self.numbers["k"], inputs.own)


class KNearestWithExposure(KeptDetector):
    """Score: distance to the k-th nearest ID training molecule minus that to the k-th nearest OOD.

    An ID training molecule leaves itself out; an OOD training molecule cannot be told from a new
    one, so its own score is too high by the distance that it has from itself.
    """

    name: ClassVar[str] = "oe_knn"
    needs_ood: ClassVar[bool] = True

    @classmethod
    def _fitted(cls, training: Training) -> Self:
        """Keeps both kinds' features; one k for both, so that the distances are comparable."""
        most = min(len(training.id_train) - 1, len(training.ood_train))
        k = capped(
            training.settings.knn_k, most, "--knn_k", "other training molecules of the rarer kind"
        )
        kept = {"id": training.id_train.features, "ood": training.ood_train.features}
        return cls({kind: x.astype(np.float32) for kind, x in kept.items()}, {"k": k})

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Differences of distances (n,) float64."""
        k = self.numbers["k"]
        return _kth_distance(self, inputs, "id", k, inputs.own) - _kth_distance(
            self, inputs, "ood", k, None
        )


class LocalOutlierFactor(KeptDetector):
    """Score: how much sparser a molecule's surroundings are than its neighbours' (1: as dense).

    Breunig et al., LOF, 2000, as `sklearn.neighbors.LocalOutlierFactor(novelty=True)` has it; that
    class cannot leave a training molecule out, this one does.
    """

    name: ClassVar[str] = "lof"

    @classmethod
    def _fitted(cls, training: Training) -> Self:
        """Keeps the ID molecules' features, densities and distances to their k-th neighbours."""
        most = len(training.id_train) - 1
        k = capped(
            training.settings.lof_neighbours,
            most,
            "--lof_neighbours",
            "other ID training molecules",
        )
        x = training.id_train.features.astype(np.float32)
        distance, index = nearest_features(x, x, k, own=np.arange(len(x)))
        reach = distance[:, -1]
        return cls({"id": x, "reach": reach, "density": _density(distance, reach[index])}, {"k": k})

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Local outlier factors (n,) float64."""
        x, reach, density = (self.arrays[key] for key in ("id", "reach", "density"))
        check_width(inputs, x.shape[1], self.name)
        distance, index = nearest_features(inputs.features, x, self.numbers["k"], own=inputs.own)
        return density[index].mean(axis=1) / _density(distance, reach[index])


class Tanimoto(KeptDetector):
    """Score: 1 - Tanimoto similarity to the nearest ID training molecule.

    By ECFP4, or of sequences by k-mers.
    """

    name: ClassVar[str] = "tanimoto"

    @classmethod
    def _fitted(cls, training: Training) -> Self:
        """Keeps the ID molecules' fingerprints."""
        return cls({"bits": training.id_train.bits})

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Distances (n,) float64 in 0 … 1."""
        found = nearest(inputs.bits, self.arrays["bits"], 1, own=inputs.own)
        return 1 - found.similarity[:, 0].astype(np.float64)


def capped(asked: int, most: int, flag: str, of_what: str) -> int:
    """A number of neighbours, at most as many as there are; says so where it is less."""
    if asked > most:
        log.warning("%s %d is more than the %d %s; %d is used", flag, asked, most, of_what, most)
    return min(asked, most)


def _kth_distance(
    detector: KeptDetector, inputs: Inputs, kind: str, k: int, own: np.ndarray | None
) -> np.ndarray:
    """Distances (n,) to the k-th nearest training molecule of a kind."""
    check_width(inputs, detector.arrays[kind].shape[1], detector.name)
    return nearest_features(inputs.features, detector.arrays[kind], k, own=own).distance[:, -1]


def _density(distance: np.ndarray, neighbours_reach: np.ndarray) -> np.ndarray:
    """Local reachability density (n,); the constant, scikit-learn's, keeps duplicates finite."""
    return 1 / (np.maximum(distance, neighbours_reach).mean(axis=1) + 1e-10)
