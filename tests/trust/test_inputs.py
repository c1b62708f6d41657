"""What the error model looks at equals what SciPy and scikit-learn compute."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf

from pipeline.trust.described import Described
from pipeline.trust.errors.folds import FOLDS, cluster_folds, random_folds
from pipeline.trust.errors.inputs import Known, inputs_of
from tests.trust.made_molecules import bits_of, made_up


def test_distances_and_neighbours():
    known, asked = made_up(50), made_up(12, seed=1)
    around = Known.of(
        Described(known.bits, known.views, known.descriptors), known.labels
    ).surroundings(Described(asked.bits, asked.views, asked.descriptors))
    predicted = {"forest": (asked.labels + 1, np.ones(12)), "gp": (asked.labels, np.zeros(12))}
    inputs = inputs_of(around, predicted["forest"][0], predicted)

    likeness = 1 - cdist(bits_of(asked) > 0, bits_of(known) > 0, "jaccard")
    order = np.argsort(-likeness, axis=1, kind="stable")[:, :5]
    near = np.take_along_axis(likeness, order, axis=1)
    np.testing.assert_allclose(
        inputs["Tanimoto distance to the nearest"], 1 - near[:, 0], atol=1e-6
    )
    np.testing.assert_allclose(inputs["mean Tanimoto distance"], 1 - near.mean(axis=1), atol=1e-6)
    labels = known.labels[order]
    np.testing.assert_allclose(inputs["spread of the neighbours' labels"], labels.std(axis=1))
    mean = np.average(labels, axis=1, weights=near + 1e-3)
    gap = np.abs(asked.labels + 1 - mean)
    np.testing.assert_allclose(inputs["gap to the neighbours' labels"], gap, atol=1e-5)
    np.testing.assert_allclose(inputs["gap to the other models"], 0.5)

    features, others = known.views["minimol"], asked.views["minimol"]
    five = np.sort(cdist(others, features), axis=1)[:, :5].mean(axis=1)
    np.testing.assert_allclose(inputs["distance to the nearest by minimol"], five, rtol=1e-4)
    reference = np.sqrt(LedoitWolf().fit(features.astype(float)).mahalanobis(others))
    np.testing.assert_allclose(inputs["Mahalanobis distance by minimol"], reference, rtol=1e-4)


def test_folds_cover_everyone_and_keep_families_together():
    made = made_up(200)
    at_random, by_cluster = random_folds(200, 0), cluster_folds(made.bits, 0)
    assert np.bincount(at_random).tolist() == [40] * FOLDS
    assert set(by_cluster) == set(range(FOLDS))
    core = made_up(200, families=2)
    folds = cluster_folds(np.repeat(core.bits[:20], 10, axis=0), 0)
    assert all(len(set(folds[start : start + 10])) == 1 for start in range(0, 200, 10))
    assert cluster_folds(np.repeat(core.bits[:3], 10, axis=0), 0) is None
