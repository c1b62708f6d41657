"""The Gaussian process equals scikit-learn's, and its noise is the likeliest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel

from pipeline.trust.described import Described
from pipeline.trust.models.gaussian_process import GaussianProcess, likeliest, tanimoto
from tests.trust.made_molecules import bits_of, made_up


class Tanimoto(Kernel):
    def __init__(self):
        pass

    def __call__(self, X, Y=None, eval_gradient=False):
        Y = X if Y is None else Y
        return np.array([[(a * b).sum() / ((a + b) > 0).sum() for b in Y] for a in X])

    def diag(self, X):
        return np.ones(len(X))

    def is_stationary(self):
        return False


@pytest.fixture(scope="module")
def fitted():
    known = made_up(60)
    return known, GaussianProcess.fit(
        Described(known.bits), known.labels, binary=False, seed=0, jobs=None
    )


def test_it_equals_scikit_learn(fitted):
    known, process = fitted
    asked = made_up(20, seed=1)
    reference = GaussianProcessRegressor(Tanimoto(), alpha=process.noise, optimizer=None)
    reference.fit(bits_of(known), known.labels - known.labels.mean())
    mean, deviation = reference.predict(bits_of(asked), return_std=True)
    found = process.predict(Described(asked.bits))
    np.testing.assert_allclose(found[0], mean + known.labels.mean(), atol=1e-9)
    np.testing.assert_allclose(found[1], deviation * np.sqrt(process.amplitude), atol=1e-7)


def test_no_other_noise_is_likelier(fitted):
    known, process = fitted
    kernel, centred = tanimoto(known.bits, known.bits), known.labels - known.labels.mean()

    def likelihood(amplitude: float, noise: float) -> float:
        covariance = amplitude * (kernel + noise * np.eye(len(kernel)))
        return multivariate_normal(cov=covariance).logpdf(centred)

    amplitude, noise = likeliest(kernel, centred)
    assert (amplitude, noise) == pytest.approx((process.amplitude, process.noise))
    best = likelihood(amplitude, noise)
    others = [(a * amplitude, r * noise) for a in (0.8, 1, 1.25) for r in (0.5, 0.9, 1.1, 2)]
    assert all(likelihood(*other) < best for other in [*others, (0.8 * amplitude, noise)])


def test_probabilities_stay_between_0_and_1():
    known = made_up(60)
    labels = (known.labels > np.median(known.labels)).astype(float)
    process = GaussianProcess.fit(Described(known.bits), labels, binary=True, seed=0, jobs=None)
    said, _ = process.predict(Described(known.bits))
    assert 0 <= said.min() < 0.3 and 0.7 < said.max() <= 1
