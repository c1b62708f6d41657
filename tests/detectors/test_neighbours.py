"""Detectors by neighbours against PyOD, scikit-learn and loops over all pairs."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from pyod.models.knn import KNN
from pyod.models.lof import LOF
from rdkit import DataStructs

from pipeline.detectors.classical.neighbours import (
    KNearest,
    KNearestWithExposure,
    LocalOutlierFactor,
    Tanimoto,
)
from pipeline.detectors.distance.feature_distances import nearest_features
from pipeline.runtime.errors import InputError
from tests.detectors.made_inputs import joined, made, settings, taken, with_features

ID, OOD, NEW = made(90, 0, own=True), made(70, 1, shift=1.5), made(50, 2)


def distances(queries: np.ndarray, references: np.ndarray, own=None) -> np.ndarray:
    """All distances (n, r) in float64, one by one; infinite to what is left out."""
    found = np.array([[np.linalg.norm(a - b) for b in references] for a in queries.astype(float)])
    for row, left_out in enumerate([] if own is None else own):
        if left_out >= 0:
            found[row, left_out] = np.inf
    return found


@pytest.mark.parametrize("k", [1, 7, 50])
def test_knn_equals_pyod_on_new_molecules_and_on_training_ones(k):
    mine = KNearest.fit(ID, None, None, settings(knn_k=k), 0)
    theirs = KNN(n_neighbors=k, method="largest").fit(ID.features.astype(float))
    expected = theirs.decision_function(NEW.features.astype(float))
    np.testing.assert_allclose(mine.scores(NEW), expected, atol=1e-5)
    np.testing.assert_allclose(mine.scores(ID), theirs.decision_scores_, atol=1e-5)


@pytest.mark.parametrize("k", [1, 20])
def test_lof_equals_pyod_on_new_molecules_and_on_training_ones(k):
    mine = LocalOutlierFactor.fit(ID, None, None, settings(lof_neighbours=k), 0)
    theirs = LOF(n_neighbors=k, novelty=True).fit(ID.features.astype(float))
    expected = theirs.decision_function(NEW.features.astype(float))
    np.testing.assert_allclose(mine.scores(NEW), expected, rtol=1e-5)
    # k-distance and density of the training set are those with each molecule in it
    np.testing.assert_allclose(mine.scores(ID), theirs.decision_scores_, rtol=1e-5)


def test_knn_with_exposure_is_the_difference_of_the_distances():
    mine = KNearestWithExposure.fit(ID, OOD, None, settings(knn_k=6), 0)
    both = joined(ID, NEW)
    to_id = np.sort(distances(both.features, ID.features, both.own))[:, 5]
    to_ood = np.sort(distances(both.features, OOD.features))[:, 5]
    np.testing.assert_allclose(mine.scores(both), to_id - to_ood, atol=1e-5)


def test_knn_with_exposure_takes_one_k_for_both(caplog):
    few = taken(OOD, slice(0, 4))
    mine = KNearestWithExposure.fit(ID, few, None, settings(), 0)
    assert "--knn_k 50 is more than the 4" in caplog.text
    expected = np.sort(distances(NEW.features, ID.features))[:, 3]
    expected = expected - np.sort(distances(NEW.features, few.features))[:, 3]
    np.testing.assert_allclose(mine.scores(NEW), expected, atol=1e-5)


def test_tanimoto_equals_rdkits_and_leaves_the_molecule_itself_out():
    fingerprints = []
    both = joined(ID, NEW)
    for packed in both.bits:
        bits = DataStructs.ExplicitBitVect(2048)
        bits.SetBitsFromList(np.flatnonzero(np.unpackbits(packed)).tolist())
        fingerprints.append(bits)
    expected = []
    for row, one in enumerate(fingerprints):
        others = [f for at, f in enumerate(fingerprints[: len(ID)]) if at != both.own[row]]
        expected.append(1 - max(DataStructs.BulkTanimotoSimilarity(one, others)))
    mine = Tanimoto.fit(ID, None, None, settings(), 0)
    np.testing.assert_allclose(mine.scores(both), expected, atol=1e-6)
    np.testing.assert_allclose(mine.scores(taken(ID, slice(None), new=True)), 0, atol=1e-6)


@pytest.mark.parametrize("detector", [KNearest, LocalOutlierFactor])
def test_more_neighbours_than_molecules_are_cut_and_said(detector, caplog):
    small = taken(ID, slice(0, 10))
    with caplog.at_level(logging.WARNING):
        mine = detector.fit(small, None, None, settings(), 0)
    assert "is more than the 9 other ID training molecules; 9 is used" in caplog.text
    assert np.isfinite(mine.scores(joined(small, NEW))).all()
    if detector is KNearest:
        expected = np.sort(distances(NEW.features, small.features))[:, 8]
        np.testing.assert_allclose(mine.scores(NEW), expected, atol=1e-5)


def test_duplicates_are_at_distance_0_and_only_the_molecule_itself_is_left_out():
    twice = joined(taken(ID, slice(0, 30), new=True), taken(ID, slice(0, 30), new=True))
    twice = type(twice)(twice.features + 300, twice.bits, np.arange(60), twice.blocks)
    nearest = KNearest.fit(twice, None, None, settings(knn_k=1), 0)
    assert (nearest.scores(twice) == 0).all()
    second = KNearest.fit(twice, None, None, settings(knn_k=2), 0)
    expected = np.sort(distances(twice.features, twice.features, twice.own))[:, 1]
    np.testing.assert_allclose(second.scores(twice), expected, rtol=1e-6)
    assert (Tanimoto.fit(twice, None, None, settings(), 0).scores(twice) < 1e-6).all()


@pytest.mark.parametrize("detector", [KNearest, LocalOutlierFactor])
def test_molecules_with_one_and_the_same_feature_vector(detector):
    same = with_features(ID, np.ones((90, 4)))
    mine = detector.fit(same, None, None, settings(knn_k=5, lof_neighbours=5), 0)
    at_home = 0 if detector is KNearest else 1
    np.testing.assert_allclose(mine.scores(same), at_home, atol=1e-6)
    elsewhere = with_features(NEW, np.full((50, 4), 3.0))
    assert (mine.scores(elsewhere) > at_home + 1).all()


def test_constant_columns_change_nothing():
    padded = np.column_stack([ID.features, np.full(90, 5.0)])
    new = np.column_stack([NEW.features, np.full(50, 5.0)])
    for detector in (KNearest, LocalOutlierFactor):
        plain = detector.fit(ID, None, None, settings(), 0).scores(NEW)
        wide = detector.fit(with_features(ID, padded), None, None, settings(), 0)
        np.testing.assert_allclose(wide.scores(with_features(NEW, new)), plain, rtol=1e-6)


def test_one_molecule_is_too_few():
    with pytest.raises(InputError, match="--detector lof needs at least 2"):
        LocalOutlierFactor.fit(taken(ID, slice(0, 1)), None, None, settings(), 0)


@pytest.mark.parametrize("offset", [0, 1_000])
def test_small_distances_survive_cancellation(offset):
    rng = np.random.default_rng(0)
    references = (rng.normal(size=(200, 30)) + offset).astype(np.float32)
    queries = references[:50].copy()
    queries[10:, 0] += np.float32(0.001 if offset == 0 else 0.25)
    found = nearest_features(queries, references, 3)
    expected = distances(queries, references)
    order = np.argsort(expected, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(found.index, order)
    np.testing.assert_allclose(
        found.distance, np.take_along_axis(expected, order, 1), rtol=1e-6, atol=0
    )
    assert (found.distance[:10, 0] == 0).all() and (found.distance[10:, 0] > 0).all()
