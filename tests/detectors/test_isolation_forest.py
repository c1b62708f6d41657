"""The isolation forest against PyOD's and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from pyod.models.iforest import IForest

from pipeline.detectors.classical.isolation_forest import IsolationForest
from tests.detectors.made_inputs import made, settings, with_features

NEW = made(60, 2)


@pytest.mark.parametrize("molecules", [2, 90, 400])  # 400: each tree has 256 of them
def test_scores_equal_pyods(molecules):
    training = made(molecules, 0, own=True)
    mine = IsolationForest.fit(training, None, None, settings(isolation_trees=30), 7)
    theirs = IForest(n_estimators=30, random_state=7).fit(training.features)
    # scikit-learn shifts its scores by an offset that sets its threshold
    expected = theirs.decision_function(NEW.features) - theirs.detector_.offset_
    np.testing.assert_allclose(mine.scores(NEW), expected, rtol=1e-9)
    expected = -theirs.detector_.score_samples(training.features)
    np.testing.assert_allclose(mine.scores(training), expected, rtol=1e-9)


def test_molecules_that_are_all_alike_score_alike():
    same = with_features(made(40, 0, own=True), np.ones((40, 3)))
    scores = IsolationForest.fit(same, None, None, settings(isolation_trees=5), 0).scores(same)
    assert np.isfinite(scores).all() and np.ptp(scores) == 0
