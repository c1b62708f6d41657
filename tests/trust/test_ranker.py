"""Inputs to expected errors: as scikit-learn transforms them, in order, and in label units."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm, spearmanr
from sklearn.preprocessing import QuantileTransformer

from pipeline.trust.errors.ranker import FARTHEST, QUANTILES, ErrorRanker, normal_scores, rising


def test_normal_scores_equal_scikit_learns():
    rng = np.random.default_rng(0)
    table = np.stack([rng.normal(size=400), rng.integers(4, size=400)], axis=1)
    reference = QuantileTransformer(n_quantiles=QUANTILES, output_distribution="normal")
    expected = reference.fit_transform(table).clip(-FARTHEST, FARTHEST)
    quantiles = np.quantile(table, np.linspace(0, 1, QUANTILES), axis=0)
    found = normal_scores(table, quantiles)
    inside = (table > table.min(axis=0)) & (table < table.max(axis=0))
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-6)
    lowest = np.mean(table[:, 1] == 0)
    np.testing.assert_allclose(found[table[:, 1] == 0, 1], norm.ppf(lowest / 2), atol=0.02)


def test_expected_errors_are_in_label_units_and_find_the_errors():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(1200, 4))
    errors = np.exp(inputs[:, 0]) * np.abs(rng.normal(size=1200))
    ranker = ErrorRanker.fit(inputs[:800], errors[:800], seed=0, jobs=None)
    expected, scale = ranker.expected_and_scale(inputs[800:])
    assert spearmanr(expected, errors[800:]).statistic > 0.4
    for found in (expected, scale):
        assert 0.8 < found.mean() / errors[800:].mean() < 1.25
    high = expected > np.quantile(expected, 0.8)
    assert 0.7 < expected[high].mean() / errors[800:][high].mean() < 1.4


def test_the_line_rises_everywhere():
    rng = np.random.default_rng(2)
    ranks, errors = rising(rng.random(300), rng.exponential(size=300))
    assert (np.diff(ranks) > 0).all() and (np.diff(errors) > 0).all()
