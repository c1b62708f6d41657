"""What a generator must do better than: a constant, and the best linear map.

For rows x of mean μ and covariance C, and noise ε of unit variance, the best linear guess of a
target y = a x + b ε from x_t = α x + σ ε is a μ + (a α C + b σ I)(α² C + σ² I)⁻¹ (x_t − α μ). With
μ and C of each class it is what a Gaussian of the class would say: a model that is not below it
has learned no more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Gaussian(NamedTuple):
    """Mean (d,), and variances (d,) along vectors (d, d), the columns."""

    mean: np.ndarray
    variances: np.ndarray
    vectors: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray) -> Gaussian:
        """Of rows (n, d), with the covariance shrunk by Ledoit and Wolf (2004)."""
        from sklearn.covariance import LedoitWolf  # slow to import

        fitted = LedoitWolf().fit(rows)
        variances, vectors = np.linalg.eigh(fitted.covariance_)
        return cls(fitted.location_, variances.clip(min=0), vectors)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Rows (count, d) float32."""
        drawn = rng.standard_normal((count, len(self.mean))) * np.sqrt(self.variances)
        return (self.mean + drawn @ self.vectors.T).astype(np.float32)

    def denoised(
        self, noisy: np.ndarray, signal: np.ndarray, noise: np.ndarray,
        target: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray:  # fmt: skip
        """The best linear guesses (n, d) of a x + b ε.

        Parameters
        ----------
        noisy : (n, d) rows α x + σ ε.
        signal, noise : α and σ of each row (n,).
        target : a and b of each row (n,).
        """
        alpha, sigma, a, b = (share[:, None] for share in (signal, noise, *target))
        about = (noisy - alpha * self.mean) @ self.vectors
        gain = (a * alpha * self.variances + b * sigma) / (alpha**2 * self.variances + sigma**2)
        return a * self.mean + (gain * about) @ self.vectors.T


def target_shares(
    prediction: str, signal: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """a and b of the target a x + b ε: of the velocity α ε − σ x (Salimans and Ho 2022), or ε."""
    if prediction == "v":
        return -noise, signal
    return np.zeros_like(noise), np.ones_like(noise)
