"""What all detectors have in common, whatever they score by."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from safetensors.numpy import load as read_safetensors

from pipeline.detectors.base import Detector
from pipeline.detectors.property_heads import property_head
from pipeline.detectors.registry import (
    DETECTORS,
    ENERGY_HEADS,
    depends_on_seed,
    detector_class,
    needs,
)
from pipeline.evaluation.metrics import auroc
from pipeline.runtime.errors import InputError
from tests.detectors.made_inputs import binary_labels, joined, made, settings, taken

SETTINGS = settings(property_patience=5, ensemble_size=2)


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    monkeypatch.setattr(property_head, "MOST_EPOCHS", 60)


@pytest.fixture(scope="module")
def molecules():
    """120 ID training, 60 OOD training, 40 new ID and 40 new OOD molecules."""
    return (
        made(120, 0, own=True), made(60, 1, shift=2.5), made(40, 2), made(40, 3, shift=2.5)
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(molecules):
    """Each detector, fitted once."""
    id_train, ood_train, *_ = molecules
    kept: dict[str, Detector] = {}

    def fit(name: str) -> Detector:
        if name not in kept:
            labels = binary_labels(id_train)
            kept[name] = detector_class(name).fit(id_train, ood_train, labels, SETTINGS, seed=1)
        return kept[name]

    return fit


@pytest.fixture(params=DETECTORS)
def name(request) -> str:
    return request.param


def test_names_and_needs_are_those_of_the_class(name):
    cls = detector_class(name)
    assert cls.name == name
    assert needs(name) == (cls.needs_ood, cls.needs_labels)
    assert isinstance(cls({}), Detector)


def test_unknown_names_list_those_that_there_are():
    with pytest.raises(InputError, match="'knnn'.*dpo.*mahalanobis.*ensemble"):
        detector_class("knnn")
    with pytest.raises(InputError, match="'knnn'"):
        needs("knnn")
    with pytest.raises(InputError, match="energy head"):
        detector_class("dpo")
    assert all(needs(head) == (True, False) for head in ENERGY_HEADS)


# Networks for labels that never saw OOD molecules are surer of these; their formula is checked.
SEES_SHIFT = [name for name in DETECTORS if needs(name).ood or not needs(name).labels]


@pytest.mark.parametrize("name", SEES_SHIFT)
def test_higher_is_more_ood(name, fitted, molecules):
    *_, new_id, new_ood = molecules
    scores = fitted(name).scores(joined(new_id, new_ood))
    assert scores.shape == (80,) and scores.dtype == np.float64
    assert auroc(np.repeat([False, True], 40), scores) > 0.9


def test_saved_and_loaded_scores_are_equal(name, fitted, molecules):
    everything = joined(*molecules)
    files = fitted(name).save()
    for file, content in files.items():
        if file.endswith(".json"):
            json.loads(content)
        else:
            assert file.endswith(".safetensors") and read_safetensors(content)
    loaded = detector_class(name).load(files)
    np.testing.assert_array_equal(loaded.scores(everything), fitted(name).scores(everything))
    assert Counter(loaded.save()) == Counter(files)


def test_a_score_does_not_depend_on_the_company(name, fitted, molecules):
    everything = joined(*molecules)
    order = np.random.default_rng(0).permutation(len(everything))
    whole = fitted(name).scores(everything)
    parts = [fitted(name).scores(taken(everything, rows)) for rows in np.array_split(order, 7)]
    np.testing.assert_allclose(np.concatenate(parts), whole[order], rtol=1e-9, atol=1e-9)
    assert fitted(name).scores(taken(everything, slice(0, 0))).shape == (0,)


def test_the_same_seed_gives_the_same_scores(name, fitted, molecules):
    id_train, ood_train, new_id, _ = molecules
    again = detector_class(name).fit(id_train, ood_train, binary_labels(id_train), SETTINGS, seed=1)
    np.testing.assert_array_equal(again.scores(new_id), fitted(name).scores(new_id))


def test_those_that_depend_on_no_seed_are_known(name, fitted, molecules):
    """Where there are few molecules; of many, distance_lr draws those that it measures to."""
    id_train, ood_train, *_, new = molecules
    labels = binary_labels(id_train)
    other = detector_class(name).fit(id_train, ood_train, labels, SETTINGS, seed=2)
    same = np.array_equal(other.scores(new), fitted(name).scores(new))
    assert same == (not depends_on_seed(name) or name == "distance_lr")


def test_what_is_missing_is_an_error_that_says_so(name, molecules):
    id_train, ood_train, *_ = molecules
    cls, labels = detector_class(name), binary_labels(id_train)
    if cls.needs_ood:
        for none in (None, taken(ood_train, slice(0, 0))):
            with pytest.raises(InputError, match=f"{name} learns from molecules known to be OOD"):
                cls.fit(id_train, none, labels, SETTINGS, 0)
    if cls.needs_labels:
        with pytest.raises(InputError, match=f"{name} learns from labels.*--label_column"):
            cls.fit(id_train, ood_train, None, SETTINGS, 0)
    with pytest.raises(InputError, match=f"{name} needs at least 2 ID training molecules, got 1"):
        cls.fit(taken(id_train, slice(0, 1)), ood_train, labels[:1], SETTINGS, 0)


def test_features_that_are_not_finite_are_named(name, molecules):
    id_train, ood_train, *_ = molecules
    broken = taken(id_train, slice(None))
    broken.features[[7, 9], 2] = np.nan, np.inf
    with pytest.raises(InputError, match="ID training molecules, 2 have .* row 7"):
        detector_class(name).fit(broken, ood_train, binary_labels(id_train), SETTINGS, 0)


@pytest.mark.parametrize("name", sorted({*DETECTORS} - {"tanimoto"}))
def test_other_views_than_in_training_are_an_error(name, fitted, molecules):
    new = taken(molecules[2], slice(None))
    narrower = type(new)(new.features[:, :10], new.bits, new.own, {"minimol": slice(0, 10)})
    with pytest.raises(InputError, match="views that it was trained with"):
        fitted(name).scores(narrower)


def test_another_detectors_files_and_missing_files_are_errors(name, fitted):
    other = "knn" if name != "knn" else "lof"
    with pytest.raises(InputError, match=f"holds the detector '{other}', expected '{name}'"):
        detector_class(name).load(fitted(other).save())
    with pytest.raises(InputError, match="lacks its file detector.json"):
        detector_class(name).load({})


def test_neither_torchs_random_state_nor_its_threads_change(molecules):
    import torch

    id_train, ood_train, *_ = molecules
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    detector = detector_class("energy_oe")
    detector.fit(id_train, ood_train, binary_labels(id_train), SETTINGS, 3).scores(id_train)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
