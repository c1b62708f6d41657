"""Metrics, thresholds and intervals, against scikit-learn on rows that are really repeated."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, matthews_corrcoef, roc_auc_score

from pipeline.augmentation import intervals
from pipeline.augmentation.intervals import (
    HARMS,
    HELPS,
    SAME,
    TOO_FEW,
    difference,
    resampled_measures,
    resamples,
    verdict,
)
from pipeline.augmentation.scores import METRICS, Judged, measures, threshold_of

RNG = np.random.default_rng(0)
GROUPS = np.unique(RNG.integers(15, size=160), return_inverse=True)[1]
IS_RARE = RNG.random(160) < 0.2


def judged(seed: int) -> Judged:
    """Scores with many ties, and what is called rare."""
    rng = np.random.default_rng(seed)
    scores = (rng.normal(size=160) + IS_RARE).round(1)
    return Judged(scores, scores >= 0.8, IS_RARE, GROUPS)


def expected(rows: np.ndarray, one: Judged) -> list[float]:
    scores, called, is_rare = (each[rows] for each in one[:3])
    return [
        f1_score(is_rare, called), matthews_corrcoef(is_rare, called),
        roc_auc_score(is_rare, scores), average_precision_score(is_rare, scores),
    ]  # fmt: skip


def repeated(counts: np.ndarray) -> np.ndarray:
    """The rows of a resample, each as often as its group was drawn."""
    return np.concatenate([np.tile(np.flatnonzero(GROUPS == g), n) for g, n in enumerate(counts)])


def test_the_measures_are_those_of_scikit_learn():
    one = judged(1)
    found = measures(one.scores, one.is_rare, one.called)
    assert list(found) == list(METRICS)
    np.testing.assert_allclose(list(found.values()), expected(np.arange(160), one), rtol=1e-12)
    nothing_called = measures(one.scores, one.is_rare)
    assert (nothing_called["f1"], nothing_called["mcc"]) == (0, 0)


def test_resamples_of_groups_are_those_of_a_plain_loop(monkeypatch):
    one = judged(2)
    monkeypatch.setattr(intervals, "AT_ONCE", 160 * 7)  # 7 resamples at once, the last 4
    found = resampled_measures(one, 25, seed=5)
    drawn = np.concatenate(list(resamples(GROUPS.max() + 1, 25, 5, 25)))
    assert (drawn.sum(axis=1) == GROUPS.max() + 1).all() and drawn.max() > 2
    for counts, values in zip(drawn, found, strict=True):
        np.testing.assert_allclose(values, expected(repeated(counts), one), rtol=1e-10)


def test_intervals_are_percentiles_of_the_mean_over_seeds():
    fits = {name: {seed: judged(seed + shift) for seed in (1, 2, 3)}
            for name, shift in (("one", 10), ("other", 20))}  # fmt: skip
    every = np.arange(160)
    values = {
        metric: [(expected(every, fits["one"][s])[m], expected(every, fits["other"][s])[m])
                 for s in (1, 2, 3)]
        for m, metric in enumerate(METRICS)
    }  # fmt: skip
    drawn = {name: {seed: resampled_measures(each, 12, 3) for seed, each in of.items()}
             for name, of in fits.items()}  # fmt: skip
    found = difference(drawn["one"], drawn["other"], values)
    gains = []
    for (counts,) in resamples(GROUPS.max() + 1, 12, 3, 1):
        rows = repeated(counts)
        of_seeds = [
            np.subtract(*(expected(rows, of[seed]) for of in fits.values())) for seed in (1, 2, 3)
        ]
        gains.append(np.mean(of_seeds, axis=0))
    bounds = np.percentile(gains, [2.5, 97.5], axis=0)
    for m, metric in enumerate(METRICS):
        np.testing.assert_allclose(found[metric]["ci95"], bounds[:, m], rtol=1e-9, atol=1e-12)
        mean = np.mean([one - other for one, other in values[metric]])
        assert found[metric]["mean"] == pytest.approx(mean)
        assert found[metric]["better"] == sum(one > other for one, other in values[metric])


def test_resamples_without_a_class_are_left_out():
    one = Judged(np.arange(6.0), np.arange(6) > 3, np.arange(6) == 5, np.arange(6))
    found = resampled_measures(one, 200, 0)
    drawn = np.concatenate(list(resamples(6, 200, 0, 200)))
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), drawn[:, 5] == 0)
    np.testing.assert_array_equal(np.isnan(found).any(axis=1), drawn[:, 5] == 0)
    assert 0 < intervals.undefined([found]) < 200
    gain = difference({0: found}, {0: found}, {metric: [(1.0, 1.0)] for metric in METRICS})
    assert gain["aupr"]["ci95"] == [0, 0]


@pytest.mark.parametrize("by, metric", [("f1", f1_score), ("mcc", matthews_corrcoef)])
def test_no_other_threshold_is_better(by, metric):
    one = judged(3)
    chosen = threshold_of(one.scores, one.is_rare, by)
    best = max(metric(one.is_rare, one.scores >= value) for value in np.unique(one.scores))
    assert metric(one.is_rare, one.scores >= chosen) == pytest.approx(best, rel=1e-12)


def test_something_is_shown_only_if_the_interval_and_all_seeds_say_so():
    for ci95, better, worse, told in (
        ([0.01, 0.2], 5, 0, HELPS), ([0.01, 0.2], 4, 1, SAME), ([-0.01, 0.2], 5, 0, SAME),
        ([-0.2, -0.01], 0, 5, HARMS), ([-0.2, -0.01], 1, 4, SAME), ([0.0, 0.0], 0, 0, SAME),
    ):  # fmt: skip
        found = {"ci95": ci95, "better": better, "worse": worse, "seeds": 5}
        assert verdict(found, 10) == told and verdict(found, 9) == TOO_FEW
