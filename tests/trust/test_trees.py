"""Forests as arrays say what scikit-learn's say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from pipeline.trust.models import trees
from pipeline.trust.models.trees import Trees


@pytest.mark.parametrize("at_once", [1_000_000, 70])
def test_each_tree_equals_scikit_learns(monkeypatch, at_once):
    monkeypatch.setattr(trees, "AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(120, 6)).astype(np.float32)
    table[:, 3] = table[:, 3] > 0
    forest = RandomForestRegressor(15, min_samples_leaf=2, random_state=0)
    forest.fit(table, table[:, 0] * table[:, 3] + rng.normal(size=120))
    asked = rng.normal(size=(50, 6)).astype(np.float32)
    reference = np.stack([tree.predict(asked) for tree in forest.estimators_], axis=1)
    made = Trees.of(forest)
    np.testing.assert_array_equal(made.each(asked), reference)
    np.testing.assert_array_equal(Trees.from_arrays(made.arrays()).each(asked), reference)
    assert made.each(asked[:0]).shape == (0, 15)
