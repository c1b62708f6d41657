"""What a generator must do better than: a constant, and the best linear map.

For rows x of mean μ and covariance C, and noise ε of unit variance, the best linear guess of a
target y = a x + b ε from x_t = α x + σ ε is a μ + (a α C + b σ I)(α² C + σ² I)⁻¹ (x_t − α μ). It is
what a Gaussian of each class would say: a model that is not below it has learned no more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHRINKAGE_ROWS = 1.0  # rows of unit covariance that are added to the real ones


@dataclass(frozen=True)
class LinearDenoiser:
    """The best linear map, of the rows of each class about their mean.

    Attributes
    ----------
    means : (classes, d).
    variances, vectors : (d,) and (d, d) of the covariance within classes.
    """

    means: np.ndarray
    variances: np.ndarray
    vectors: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, classes: np.ndarray, count: int) -> LinearDenoiser:
        """Of rows (n, d) and the number of each one's class (n,), of `count`."""
        x = rows.astype(np.float64)
        means = np.stack([x[classes == each].mean(axis=0) for each in range(count)])
        within = x - means[classes]
        unit = SHRINKAGE_ROWS * np.eye(x.shape[1])
        covariance = (within.T @ within + unit) / (len(x) + SHRINKAGE_ROWS)
        return cls(means, *np.linalg.eigh(covariance))

    def __call__(
        self, noisy: np.ndarray, classes: np.ndarray, signal: np.ndarray, noise: np.ndarray,
        target: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray:  # fmt: skip
        """Guesses (n, d) of a x + b ε.

        Parameters
        ----------
        noisy : (n, d) rows α x + σ ε.
        signal, noise : α and σ of each row (n,).
        target : a and b of each row (n,).
        """
        alpha, sigma, a, b = (v[:, None] for v in (signal, noise, *target))
        means = self.means[classes]
        about = (noisy - alpha * means) @ self.vectors
        gain = (a * alpha * self.variances + b * sigma) / (alpha**2 * self.variances + sigma**2)
        return a * means + (gain * about) @ self.vectors.T


def target_shares(
    prediction: str, signal: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """a and b of the target a x + b ε: of the velocity α ε − σ x (Salimans and Ho 2022), or ε."""
    if prediction == "v":
        return -noise, signal
    return np.zeros_like(noise), np.ones_like(noise)
