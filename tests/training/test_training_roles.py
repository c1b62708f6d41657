"""Who validates, and how a library is dealt into folds, whatever the clusters."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.training import training_roles


@pytest.mark.parametrize(
    "sizes", [[1, 99], [50, 50], [25, 25, 25, 25], [90, 2, 2, 2, 2, 2], [1] * 10, [5, 5, 90]]
)
def test_validation_is_never_empty_and_never_all(sizes):
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(20):
        chosen = training_roles._validating(clusters, np.random.default_rng(seed))
        assert 0 < chosen.sum() < len(clusters)
        for cluster in range(len(sizes)):
            assert len(set(chosen[clusters == cluster])) == 1


def test_folds_have_clusters_alike_in_number_and_size():
    """One fold would else train with a handful."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(5, 100, 30)
        clusters = rng.permutation(np.repeat(np.arange(30), sizes))
        folds = training_roles._dealt(clusters, rng)
        names = [set(clusters[folds == fold]) for fold in (0, 1)]
        assert not names[0] & names[1] and len(names[0]) == len(names[1]) == 15
        assert abs((folds == 0).mean() - 0.5) < 0.05
    assert [len(set(training_roles._dealt(np.arange(k), rng))) for k in (4, 5, 7)] == [2, 2, 2]
