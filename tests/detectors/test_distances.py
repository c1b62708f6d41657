"""Distances to training molecules against loops, and the regression on them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.detectors.distance import distances as distances_module
from pipeline.detectors.distance.distance_regression import DistanceRegression
from pipeline.detectors.distance.distances import TrainingDistances
from pipeline.runtime.errors import InputError
from tests.detectors.made_inputs import BLOCKS, joined, made, settings, taken

ID, OOD, NEW = made(60, 0, own=True), made(40, 1, shift=1.5), made(30, 2)
NAMES = ("tanimoto_1", "tanimoto_5", "minimol_1", "minimol_5", "descriptors_1", "descriptors_5")


def expected_distances(inputs, references, rows) -> np.ndarray:
    """(n, 6) over loops; `rows` are the references' rows in the training set."""
    table = []
    for at in range(len(inputs)):
        others = [r for r, row in enumerate(rows) if row != inputs.own[at]]
        bits, refs = np.unpackbits(inputs.bits[at]), np.unpackbits(references.bits[others], axis=1)
        columns = [1 - (refs & bits).sum(axis=1) / (refs | bits).sum(axis=1)]
        for name in ("minimol", "descriptors"):
            x, y = (i.features[:, BLOCKS[name]].astype(float) for i in (inputs, references))
            columns.append(np.sqrt(((y[others] - x[at]) ** 2).sum(axis=1)))
        nearest = [np.sort(column)[:5] for column in columns]
        table.append([value for five in nearest for value in (five[0], five.mean())])
    return np.array(table)


def test_distances_equal_loops_and_leave_the_molecule_itself_out():
    found = TrainingDistances.fit(ID, 0)
    everything = joined(ID, OOD, NEW)
    assert found.names == NAMES
    expected = expected_distances(everything, ID, np.arange(60))
    np.testing.assert_allclose(found.of(everything), expected, atol=1e-6)
    known = found.of(taken(ID, slice(None), new=True))
    assert (known[:, ::2] < 1e-6).all() and (known[:, 2::2] == 0).all()


def test_a_large_training_set_is_drawn_from_and_rows_still_leave_themselves_out(
    monkeypatch, caplog
):
    monkeypatch.setattr(distances_module, "MOST_REFERENCES", 25)
    with caplog.at_level(logging.INFO):
        found = TrainingDistances.fit(ID, 3)
    assert "to 25 of 60 ID molecules, drawn at random" in caplog.text
    assert len(set(found.rows)) == 25 and found.rows.max() > 30
    everything = joined(ID, NEW)
    expected = expected_distances(everything, taken(ID, found.rows), found.rows)
    np.testing.assert_allclose(found.of(everything), expected, atol=1e-6)
    np.testing.assert_array_equal(TrainingDistances.fit(ID, 3).rows, found.rows)
    loaded = TrainingDistances.load(found.save())
    np.testing.assert_array_equal(loaded.of(everything), found.of(everything))
    assert loaded.names == found.names


def test_few_training_molecules_give_means_over_fewer_and_say_so(caplog):
    few = taken(ID, slice(0, 4))
    found = TrainingDistances.fit(few, 0)
    assert "means are over 3 other ID molecules, not 5" in caplog.text
    alone = found.of(few)
    assert alone.shape == (4, 6) and np.isfinite(alone).all()
    with pytest.raises(InputError, match="at least 2"):
        TrainingDistances.fit(taken(ID, slice(0, 1)), 0)


def test_a_missing_view_is_an_error():
    found = TrainingDistances.fit(ID, 0)
    narrow = type(NEW)(NEW.features, NEW.bits, NEW.own, {"minimol": slice(0, 5)})
    with pytest.raises(InputError, match="3 features of the view descriptors, .* have 0"):
        found.of(narrow)


def test_the_regression_equals_scikit_learns_on_distances_from_loops():
    mine = DistanceRegression.fit(ID, OOD, None, settings(), 0)
    x = expected_distances(joined(ID, OOD), ID, np.arange(60))
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", tol=1e-10, max_iter=9_999)
    ).fit(x, np.repeat([0, 1], [60, 40]))
    expected = model.decision_function(expected_distances(NEW, ID, np.arange(60)))
    np.testing.assert_allclose(mine.scores(NEW), expected, atol=1e-5)
    assert mine.numbers["distances"] == list(NAMES)


def test_a_distance_that_never_varies_has_no_say():
    def flat(inputs):
        features = inputs.features.copy()
        features[:, BLOCKS["descriptors"]] = 1
        return type(inputs)(features, inputs.bits, inputs.own, inputs.blocks)

    mine = DistanceRegression.fit(flat(ID), flat(OOD), None, settings(), 0)
    assert (mine.arrays["coefficients"][4:] == 0).all()
    np.testing.assert_array_equal(mine.scores(flat(NEW)), mine.scores(NEW))
