"""A property model: a Gaussian process whose kernel is the Tanimoto similarity of ECFP4.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), algorithm 2.1, in float64;
the kernel is positive definite (Ralaivola et al., Neural Networks 18, 1093, 2005).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.trust.described import Described

# Its time grows with the third power of the molecules: of more, a seeded sample is taken.
MOST, MOST_FOR_NOISE = 3000, 800
NOISES = (1e-4, 1e2)  # of the kernel's amplitude, between which the noise is looked for
AT_ONCE = 2048


def tanimoto(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Similarities of packed fingerprints (n, w) and (r, w): float64 (n, r).

    Two molecules without any bit are alike.
    """
    asked, known = (np.unpackbits(b, axis=1).astype(np.float32) for b in (queries, references))
    both = (asked @ known.T).astype(float)  # whole numbers, exact in float32
    either = asked.sum(axis=1)[:, None].astype(float) + known.sum(axis=1) - both
    return np.divide(both, either, out=np.ones_like(both), where=either > 0)


@dataclass(frozen=True)
class GaussianProcess:
    """A process with a constant mean, an amplitude, and noise.

    Attributes
    ----------
    rows : (r,) of the known molecules, those that it rests on.
    bits : theirs, packed, (r, 256).
    factor : (r, r) lower Cholesky factor of T + noise · 1.
    weights : (r,), (T + noise · 1)⁻¹ (y − mean).
    mean, amplitude, noise : the labels' mean; the variance a of the process; noise / a.
    binary : whether predictions are probabilities, which are kept between 0 and 1.
    """

    rows: np.ndarray
    bits: np.ndarray
    factor: np.ndarray
    weights: np.ndarray
    mean: float
    amplitude: float
    noise: float
    binary: bool

    @classmethod
    def fit(
        cls, known: Described, labels: np.ndarray, *, binary: bool, seed: int, jobs: int | None,
        light: bool = False,
    ) -> GaussianProcess:  # fmt: skip
        """Fit to labels (n,); amplitude and noise have the largest marginal likelihood."""
        rng = np.random.default_rng(seed)
        rows = np.arange(len(labels))
        if len(rows) > MOST:
            rows = np.sort(rng.choice(rows, MOST, replace=False))
        bits, mean = known.bits[rows], float(labels[rows].mean())
        some = rng.permutation(len(rows))[:MOST_FOR_NOISE]
        amplitude, noise = likeliest(tanimoto(bits[some], bits[some]), labels[rows][some] - mean)
        return cls._made(rows, bits, labels[rows] - mean, mean, amplitude, noise, binary)

    @classmethod
    def _made(cls, rows, bits, centred, mean, amplitude, noise, binary) -> GaussianProcess:
        from scipy.linalg import cho_solve, cholesky  # slow to import

        kernel = tanimoto(bits, bits)
        kernel[np.diag_indices_from(kernel)] += noise
        factor = cholesky(kernel, lower=True, overwrite_a=True)
        weights = cho_solve((factor, True), centred)
        return cls(rows, bits, factor, weights, mean, amplitude, noise, binary)

    def predict(self, asked: Described) -> tuple[np.ndarray, np.ndarray]:
        """Mean of the process and its standard deviation without the noise, float64 (n,) each."""
        parts = [
            self._predict(asked.bits[at : at + AT_ONCE]) for at in range(0, len(asked), AT_ONCE)
        ]
        means, deviations = (np.concatenate(each) for each in zip(*parts))
        return means.clip(0, 1) if self.binary else means, deviations

    def _predict(self, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from scipy.linalg import solve_triangular  # slow to import

        likeness = tanimoto(bits, self.bits)
        explained = np.square(solve_triangular(self.factor, likeness.T, lower=True)).sum(axis=0)
        variance = self.amplitude * np.maximum(1 - explained, 0)
        return self.mean + likeness @ self.weights, np.sqrt(variance)

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and what else decides predictions, ready for JSON."""
        numbers = {name: getattr(self, name) for name in ("mean", "amplitude", "noise", "binary")}
        # the factor follows from the bits, and is large
        return {"rows": self.rows, "weights": self.weights}, numbers

    @classmethod
    def load(
        cls, arrays: Mapping[str, np.ndarray], more: dict[str, Any], known: Described
    ) -> GaussianProcess:
        """The inverse of `save`; `known` are the molecules it was fitted to."""
        from dataclasses import replace

        bits = known.bits[arrays["rows"]]
        made = cls._made(arrays["rows"], bits, np.zeros(len(bits)), **more)
        return replace(made, weights=arrays["weights"])


def likeliest(kernel: np.ndarray, centred: np.ndarray) -> tuple[float, float]:
    """Amplitude a and noise r of the largest marginal likelihood of N(0, a (K + r · 1)).

    In the kernel's own axes both are sums: of each r the best a is the mean of z² / (λ + r), so
    only r is searched.

    Parameters
    ----------
    kernel, centred : (n, n), and labels (n,) without their mean.
    """
    from scipy.linalg import eigh
    from scipy.optimize import minimize_scalar

    values, axes = eigh(kernel)
    values, squares = np.maximum(values, 0), np.square(axes.T @ centred)

    def loss(log_noise: float) -> float:
        along = values + np.exp(log_noise)
        return len(centred) * np.log(max(np.mean(squares / along), 1e-300)) + np.log(along).sum()

    # several minima are possible: the best of a grid is refined
    grid = np.linspace(*np.log(NOISES), 29)
    best = int(np.argmin([loss(each) for each in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    noise = float(np.exp(minimize_scalar(loss, bounds=around, method="bounded").x))
    return float(np.mean(squares / (values + noise))), noise
