"""Metrics of scores equal SciPy's, scikit-learn's, and what they mean, counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from pipeline.trust.metrics import bootstrap, finds_errors, is_worst, retention


@pytest.fixture(params=[False, True], ids=["distinct", "ties"])
def given(request):
    rng = np.random.default_rng(3)
    errors = rng.exponential(size=200)
    scores = errors + rng.exponential(size=200)
    return (np.round(scores), errors) if request.param else (scores, errors)


def test_they_equal_their_references(given):
    scores, errors = given
    found = finds_errors(scores, errors)
    assert found["spearman"] == pytest.approx(spearmanr(scores, errors).statistic)
    assert is_worst(errors).sum() == 40
    assert found["auroc_worst"] == pytest.approx(roc_auc_score(is_worst(errors), scores))


def test_retention_is_the_error_of_those_kept():
    errors, scores = np.array([4.0, 1.0, 2.0, 3.0, 0.0]), np.array([5, 1, 4, 3, 2])
    kept = retention(scores, errors, np.array([0.2, 0.4, 0.8, 1.0]))
    means = [1, 0.5, (1 + 0 + 9 + 4) / 4, (1 + 0 + 9 + 4 + 16) / 5]
    np.testing.assert_allclose(kept, np.sqrt(means))
    found = finds_errors(scores, errors)
    assert found["rmse_kept_80"] == pytest.approx(kept[2])
    by_score = np.mean([1, 1 / 2, 4 / 3, 6 / 4, 10 / 5])
    by_error = np.mean([0, 1 / 2, 3 / 3, 6 / 4, 10 / 5])
    assert found["excess_aurc"] == pytest.approx(by_score - by_error)


def test_the_order_of_rows_does_not_count(given):
    scores, errors = given
    order = np.random.default_rng(0).permutation(len(scores))
    assert finds_errors(scores[order], errors[order]) == pytest.approx(finds_errors(scores, errors))


def test_a_constant_score_is_worth_nothing():
    errors = np.random.default_rng(0).exponential(size=100)
    found = finds_errors(np.ones(100), errors)
    assert (found["spearman"], found["auroc_worst"]) == (0, 0.5)
    assert found["rmse_kept_50"] == pytest.approx(np.sqrt(np.mean(errors**2)))


def test_intervals_hold_the_value_and_shrink_with_molecules():
    rng = np.random.default_rng(1)
    widths = []
    for count in (100, 1600):
        errors = rng.exponential(size=count)
        scores = {"some": errors + rng.exponential(size=count)}
        low, high = bootstrap(scores, errors, samples=200, seed=0)["some"]["spearman"]
        assert low < finds_errors(scores["some"], errors)["spearman"] < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)
