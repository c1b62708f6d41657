"""Intervals equal those of crepes, and hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from crepes import ConformalRegressor

from pipeline.runtime.errors import InputError
from pipeline.trust.errors.conformal import interval, least_molecules, quantile


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("count", [19, 20, 99, 250])
def test_intervals_equal_those_of_crepes(alpha, count):
    rng = np.random.default_rng(count)
    scale, residuals = rng.uniform(0.5, 2, count), rng.normal(size=count)
    prediction, other = rng.normal(size=30), rng.uniform(0.5, 2, 30)
    reference = ConformalRegressor().fit(residuals, sigmas=scale)
    # a little less: crepes cuts 20 * (1 - 0.9), which is 2 but for rounding, down to 1
    confidence = 1 - alpha - 1e-9
    expected = reference.predict_int(prediction, sigmas=other, confidence=confidence)
    q = quantile(np.abs(residuals) / scale, alpha)
    found = np.stack(interval(prediction, other, q, binary=False), axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_share_inside_is_as_promised():
    rng = np.random.default_rng(0)
    inside = [
        np.mean(rng.exponential(size=200) <= quantile(rng.exponential(size=79), 0.1))
        for _ in range(400)
    ]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.005)


def test_too_few_molecules_are_told_with_the_number_needed():
    assert [least_molecules(alpha) for alpha in (0.1, 0.05, 0.5, 0.3)] == [9, 19, 1, 3]
    for alpha in (0.1, 0.05, 0.5, 0.3):
        least = least_molecules(alpha)
        assert quantile(np.arange(float(least)), alpha) == least - 1
        with pytest.raises(InputError, match=f"at least {least:,} calibration molecules"):
            quantile(np.arange(float(least - 1)), alpha)
    with pytest.raises(InputError, match="between 0 and 1"):
        quantile(np.arange(9.0), 1)


def test_intervals_of_probabilities_end_at_0_and_1():
    lower, upper = interval(np.array([0.1, 0.5]), np.array([1.0, 0.2]), 1, binary=True)
    assert lower.tolist() == [0, 0.3] and upper.tolist() == [1, 0.7]
