"""The gate: what quality means, copies, and that nothing is filled in."""

import numpy as np
import pytest

from pipeline.generation.quality import Gathered, Judge, gather

RNG = np.random.default_rng(0)
TRAIN, HELD, CANDIDATES = (RNG.normal(size=(n, 4)).astype(np.float32) for n in (60, 40, 25))


def kth_distance(rows, others, k):
    others = others.astype(float)
    return np.array([np.sort(np.linalg.norm(others - row, axis=1))[k - 1] for row in rows])


def test_quality_is_the_share_of_real_rows_that_lie_as_far():
    judged = Judge.fit(TRAIN, HELD, 3)(CANDIDATES)
    held, mine = (kth_distance(rows, TRAIN, 3) for rows in (HELD, CANDIDATES))
    expected = [(held >= distance).mean() for distance in mine]
    np.testing.assert_allclose(judged.quality, expected, atol=1 / 40)  # float32 ties
    assert np.mean(np.abs(judged.quality - expected)) < 1e-3
    # a real row's own quality is uniform: half of them fail 0.5
    own = Judge.fit(TRAIN, HELD, 3)(HELD).quality
    assert np.mean(own >= 0.5) == pytest.approx(0.5, abs=0.03)


def test_what_lies_closer_than_training_rows_do_is_a_copy():
    judge = Judge.fit(TRAIN, HELD, 3)
    among = [kth_distance([row], np.delete(TRAIN, i, 0), 1)[0] for i, row in enumerate(TRAIN)]
    assert judge.copy_distance == pytest.approx(np.quantile(among, 0.01), rel=1e-5)
    near = TRAIN[:5] + np.float32(0.4 * judge.copy_distance / 2)
    assert judge(np.concatenate([TRAIN[:5], near])).is_copy.all()
    assert not judge(CANDIDATES).is_copy.all()
    # rows that are twice in the table do not change what a copy is
    twice = Judge.fit(np.concatenate([TRAIN, TRAIN]), HELD, 3)
    assert twice.copy_distance == pytest.approx(judge.copy_distance)


def poor_and_good(classes, attempt):
    """Candidates far from everything, but for one in five, which is real."""
    rng = np.random.default_rng(attempt)
    made = 100 + rng.normal(size=(len(classes), 4)).astype(np.float32)
    made[::5] = rng.normal(size=(len(made[::5]), 4))
    return made


def gathered(wanted, **changes):
    judges = [Judge.fit(TRAIN, HELD, 3), Judge.fit(TRAIN, HELD, 3)]
    how = {"threshold": 0.05, "multiplier": 2.0, "attempts": 3, **changes}
    return gather(judges, lambda rows: rows, wanted, poor_and_good, **how)


def test_a_shortfall_stays_one():
    first, second = gathered([20, 0])
    counts = first.counts()
    assert counts["shortfall"] == 20 - counts["returned"] > 0
    assert (first.quality[first.returned] >= 0.05).all()
    parts = ("copies_refused", "below_threshold", "passing_not_needed", "returned")
    assert sum(counts[name] for name in parts) == counts["candidates"] == len(first.features)
    assert second.counts()["shortfall"] == 0 and len(second.features) == 0


def test_no_more_is_drawn_than_is_missing_and_the_first_that_pass_are_returned():
    (each, _) = gathered([3, 0], multiplier=20.0)
    assert each.counts()["returned"] == 3 and len(each.features) == 60
    passing = np.flatnonzero(each.passing(0.05))
    np.testing.assert_array_equal(np.flatnonzero(each.returned), passing[:3])
    assert each.counts()["passing_not_needed"] == len(passing) - 3


def test_a_class_of_which_nothing_was_drawn_counts_nothing():
    each = Gathered.nothing(0, 0.5, 4)
    assert each.missing == 0 and set(each.counts().values()) == {0}
