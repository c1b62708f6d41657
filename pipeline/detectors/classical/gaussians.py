"""One Gaussian of the features: Mahalanobis distances, alone and with outlier exposure.

Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, 2018, with one
class. Covariances are shrunk (Ledoit and Wolf, 2004), so more features than molecules work.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from pipeline.detectors.base import Inputs, check_width
from pipeline.detectors.kept import KeptDetector, Training
from pipeline.runtime.errors import InputError

_AT_ONCE = 4_096  # molecules whose float64 features are in memory


class Mahalanobis(KeptDetector):
    """Score: the Mahalanobis distance to the mean of the ID training molecules."""

    name: ClassVar[str] = "mahalanobis"

    @classmethod
    def _fitted(cls, training: Training) -> Self:
        """The Gaussian of n ID molecules."""
        return cls(_gaussian(training.id_train.features, "ID"))

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Distances (n,) float64 in standard deviations."""
        check_width(inputs, len(self.arrays["mean"]), self.name)
        return np.sqrt(_squared_distances(inputs.features, self.arrays))


class MahalanobisWithExposure(KeptDetector):
    """Score: the log ratio of two Gaussians, of the OOD and of the ID training molecules.

    ln N(x; OOD) − ln N(x; ID), that is half the difference of the squared Mahalanobis distances,
    ID minus OOD, plus half that of the log determinants. Ren et al., A Simple Fix to Mahalanobis
    Distance for Improving Near-OOD Detection, 2021, take such a difference with a background.
    """

    name: ClassVar[str] = "oe_mahalanobis"
    needs_ood: ClassVar[bool] = True

    @classmethod
    def _fitted(cls, training: Training) -> Self:
        """The two Gaussians."""
        if len(training.ood_train) < 2:
            raise InputError(f"--detector {cls.name} needs at least 2 OOD training molecules")
        both = {
            "id": _gaussian(training.id_train.features, "ID"),
            "ood": _gaussian(training.ood_train.features, "OOD"),
        }
        return cls({f"{kind}.{key}": x for kind, part in both.items() for key, x in part.items()})

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Log ratios (n,) float64."""
        check_width(inputs, len(self.arrays["id.mean"]), self.name)
        of_id, of_ood = (self._log_density(kind, inputs.features) for kind in ("id", "ood"))
        return of_ood - of_id

    def _log_density(self, kind: str, features: np.ndarray) -> np.ndarray:
        """Up to the constant that both Gaussians share."""
        part = {key: self.arrays[f"{kind}.{key}"] for key in ("mean", "whitening")}
        log_determinant = -2 * np.log(np.diag(part["whitening"])).sum()
        return -0.5 * (_squared_distances(features, part) + log_determinant)


def _gaussian(features: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """`mean` (width,) and `whitening` W (width, width): W Wᵀ is the inverse of the covariance."""
    from scipy.linalg import solve_triangular
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf(store_precision=False).fit(features.astype(np.float64))
    try:
        lower = np.linalg.cholesky(fitted.covariance_)
    except np.linalg.LinAlgError:
        raise InputError(
            f"the {kind} training molecules have no covariance that can be inverted, as when all "
            "their features are equal; give more or other molecules, or take the detector knn"
        ) from None
    inverse = solve_triangular(lower, np.eye(len(lower)), lower=True)
    return {"mean": fitted.location_, "whitening": inverse.T}


def _squared_distances(features: np.ndarray, gaussian: dict[str, np.ndarray]) -> np.ndarray:
    """Squared Mahalanobis distances (n,) float64."""
    found = np.empty(len(features))
    for at in range(0, len(features), _AT_ONCE):
        part = features[at : at + _AT_ONCE].astype(np.float64) - gaussian["mean"]
        found[at : at + _AT_ONCE] = np.square(part @ gaussian["whitening"]).sum(axis=1)
    return found
