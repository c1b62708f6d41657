"""What each method makes of the training rows, and which rows a generator may see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.augmentation import synthetic
from pipeline.augmentation.fits import Data, fit_one
from pipeline.augmentation.holdout import held_out
from pipeline.augmentation.methods import METHODS, PLAIN, Training, wanted_rows
from pipeline.augmentation.run import standardised
from pipeline.augmentation.synthetic import make_rows
from pipeline.augmentation.table import Part, read_table
from pipeline.runtime.errors import InputError
from tests.augmentation.made_table import settings_of

RNG = np.random.default_rng(0)
IS_RARE = np.arange(120) % 6 == 0
FEATURES = (RNG.normal(size=(120, 3)) + 2 * IS_RARE[:, None]).astype(np.float32)
MADE = RNG.normal(size=(50, 3)).astype(np.float32)
TRAINING = Training(FEATURES, IS_RARE, wanted_rows(IS_RARE, 0.4), {
    "generated": {7: MADE[:30]}, "generated_ungated": {7: MADE},
})  # fmt: skip


def test_the_rare_class_gets_its_share():
    for share in (0.2, 0.4, 0.5, 0.8):
        wanted, rare = wanted_rows(IS_RARE, share), int(IS_RARE.sum())
        reached = (rare + wanted) / (120 + wanted)
        assert share <= reached < share + 1 / 120
    assert wanted_rows(IS_RARE, 0.1) == 0


@pytest.mark.parametrize("method", METHODS)
def test_real_rows_stay_as_they_are_and_rare_ones_are_added(method):
    rows = METHODS[method](TRAINING, 7)
    added = {PLAIN: 0, "class_weights": 0, "generated": 30, "generated_ungated": 50}
    assert len(rows.features) == 120 + added.get(method, TRAINING.wanted)
    np.testing.assert_array_equal(rows.features[:120], FEATURES)
    np.testing.assert_array_equal(rows.is_rare[:120], IS_RARE)
    assert rows.is_rare[120:].all() and rows.weights.mean() == pytest.approx(1)
    assert rows.features.dtype == np.float32
    if method == "class_weights":
        share = rows.weights[rows.is_rare].sum() / rows.weights.sum()
        assert share == pytest.approx(0.4, abs=0.01)
    else:
        assert (rows.weights == 1).all()


def test_oversampling_copies_and_smote_lies_between():
    real = FEATURES[IS_RARE]
    copies = METHODS["oversampling"](TRAINING, 7).features[120:]
    assert {row.tobytes() for row in copies} <= {row.tobytes() for row in real}
    others = METHODS["oversampling"](TRAINING, 8).features[120:]
    assert not np.array_equal(copies, others)
    pairs = [(a, b) for i, a in enumerate(real) for b in real[i + 1 :]]
    for row in METHODS["smote"](TRAINING, 7).features[120:]:
        around = [np.linalg.norm(row - a) + np.linalg.norm(row - b) - np.linalg.norm(a - b)
                  for a, b in pairs]  # fmt: skip
        assert min(around) < 1e-4
    drawn = METHODS["gaussian"](replace(TRAINING, wanted=20_000), 7).features[120:]
    np.testing.assert_allclose(drawn.mean(axis=0), real.mean(axis=0), atol=0.05)


def test_whole_groups_are_held_out_with_a_share_of_each_class():
    groups = np.arange(120) // 4
    chosen = held_out(Part(FEATURES, IS_RARE, groups), 0.25, seed=1)
    assert not set(groups[chosen]) & set(groups[~chosen])
    for of in (IS_RARE, ~IS_RARE):
        assert 0.25 <= chosen[of].mean() <= 0.5
    again = held_out(Part(FEATURES, IS_RARE, groups), 0.25, seed=1)
    np.testing.assert_array_equal(again, chosen)
    with pytest.raises(InputError, match="in 2 groups, too few .* name a finer --group_column"):
        held_out(Part(FEATURES, IS_RARE, IS_RARE.astype(int)), 0.25, seed=1)


def test_a_generator_sees_rows_of_training_alone(tmp_path, monkeypatch):
    settings = settings_of(tmp_path / "t.parquet")
    table = read_table(settings)

    class Seen(Exception):
        pass

    def record(train, holdout, *others):
        raise Seen(train, holdout)

    monkeypatch.setattr(synthetic, "fit_generator", record)
    with pytest.raises(Seen) as caught:
        make_rows(table, 10, settings, "cpu")
    learned, held = ({row.tobytes() for row in each.features} for each in caught.value.args)
    train = {row.tobytes(): group for row, group in zip(table.train.features, table.train.groups)}
    assert learned | held == train.keys() and not learned & held
    assert not {train[row] for row in learned} & {train[row] for row in held}
    for part in (table.val, *table.tests.values()):
        assert not {row.tobytes() for row in part.features} & (learned | held)
    for each in caught.value.args:
        assert set(each.classes) == {0, 1}


@pytest.fixture
def data(tmp_path) -> Data:
    settings = settings_of(tmp_path / "t.parquet", methods=["smote"])
    table = read_table(settings)
    return standardised(table, 200, None)


@pytest.mark.parametrize("classifier", ["mlp", "logistic"])
def test_a_test_decides_nothing_and_validation_no_more_than_epoch_and_threshold(
    data, classifier, tmp_path
):
    settings = settings_of(tmp_path / "t.parquet", classifier=classifier)
    first = fit_one(data, "smote", 3, settings)
    assert first.values["iid_test"]["auroc"] > 0.8
    assert first.finished == (classifier == "logistic")  # three epochs are too few for the MLP
    test = data.tests["iid_test"]
    worse = Part(-test.features, ~test.is_rare, test.groups)
    second = fit_one(replace(data, tests={"iid_test": worse}), "smote", 3, settings)
    for name in ("threshold", "epoch", "validation", "rows"):
        assert getattr(first, name) == getattr(second, name)
    assert first.values != second.values
    few = replace(data, val=data.val._replace(is_rare=data.val.features[:, 0] > 2))
    third = fit_one(few, "smote", 3, replace(settings, classifier_epochs=1))
    fourth = fit_one(data, "smote", 3, replace(settings, classifier_epochs=1))
    assert third.threshold != fourth.threshold
    for name in ("auroc", "aupr"):  # the weights are the same
        assert third.values["iid_test"][name] == fourth.values["iid_test"][name]
