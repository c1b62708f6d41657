"""The error model finds noisy molecules, is kept without pickle, and says what it cannot do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from pipeline.runtime.errors import InputError
from pipeline.trust.errors import ranker, saved
from pipeline.trust.errors.error_model import ErrorModel
from pipeline.trust.errors.inputs import stacked
from pipeline.trust.models import forest, mlp_ensemble
from tests.trust.made_molecules import MadeUp, made_up

KNOWN, ASKED = made_up(260), made_up(200, seed=1)


@pytest.fixture(scope="module", autouse=True)
def small_forests():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "TREES", 40)
        patch.setattr(forest, "LIGHT", 20)
        patch.setattr(ranker, "TREES", 30)
        patch.setattr(mlp_ensemble, "EPOCHS", 3)
        yield


def fitted(made: MadeUp = KNOWN, labels: np.ndarray | None = None, **more: Any) -> ErrorModel:
    """Without an MLP ensemble, which takes most of the time."""
    labels = made.labels if labels is None else labels
    given = {"views": {}, "descriptors": made.descriptors, "jobs": None, **more}
    return ErrorModel.fit(made.smiles, made.bits, labels, given.pop("views"), **given)


@pytest.fixture(scope="module")
def plain() -> ErrorModel:
    return fitted()


def test_it_finds_the_errors_and_its_intervals_hold(plain):
    made = plain.predict(ASKED.bits, {}, ASKED.descriptors)
    errors = np.abs(ASKED.labels - made.prediction)
    assert spearmanr(made.expected_error, errors).statistic > 0.25
    assert (made.expected_error > 0).all() and (made.scale > 0).all()
    lower, upper = plain.interval(made, 0.2)
    assert np.mean((lower <= ASKED.labels) & (ASKED.labels <= upper)) == pytest.approx(
        0.8, abs=0.12
    )
    narrow = plain.interval(made, 0.4)
    assert (narrow[1] - narrow[0] < upper - lower).all()
    np.testing.assert_allclose(upper - made.prediction, plain.quantile(0.2) * made.scale)


def test_calibration_molecules_are_fitted_by_nothing(plain):
    held = np.flatnonzero(plain.row < 0)
    assert len(held) == round(260 / 8) == len(plain.residuals)
    others = np.setdiff1d(np.arange(260), held)
    np.testing.assert_array_equal(plain.known.molecules.bits, KNOWN.bits[others])
    seen = plain.predict(KNOWN.bits[held], {}, KNOWN.descriptors[held])
    residuals = np.abs(seen.prediction - KNOWN.labels[held]) / seen.scale
    np.testing.assert_allclose(np.sort(residuals), plain.residuals)
    changed = KNOWN.labels.copy()
    changed[held] += 100
    told = fitted(labels=changed, calibration=held).predict(ASKED.bits, {}, ASKED.descriptors)
    before = plain.predict(ASKED.bits, {}, ASKED.descriptors)
    np.testing.assert_allclose(told.scale, before.scale)
    np.testing.assert_allclose(told.prediction, before.prediction)


def test_of_molecules_fitted_on_it_says_what_it_said_without_them(plain):
    own = np.arange(260)
    unseen = plain.predict(KNOWN.bits, {}, KNOWN.descriptors, own=own)
    seen = plain.predict(KNOWN.bits, {}, KNOWN.descriptors)
    fitted_on = plain.row >= 0
    errors = [np.abs(made.prediction - KNOWN.labels)[fitted_on].mean() for made in (unseen, seen)]
    assert errors[0] > 1.5 * errors[1]
    np.testing.assert_allclose(unseen.prediction[~fitted_on], seen.prediction[~fitted_on])


@pytest.mark.parametrize("kind", ["forest", "mlp", "gp", "own predictions"])
def test_what_is_kept_predicts_the_same(kind):
    own = KNOWN.labels + np.random.default_rng(0).normal(size=260) if "own" in kind else None
    some = KNOWN.views if kind == "mlp" else {}
    asked = ASKED.views if kind == "mlp" else {}
    model = fitted(
        views=some, predictions=own, property_model=None if own is not None else kind,
        calibration=np.arange(150, 260) if kind == "mlp" else None,
    )  # fmt: skip
    given = None if own is None else ASKED.labels
    files = model.save()
    assert all(name.endswith((".json", ".safetensors")) for name in files)
    again = ErrorModel.load(files)
    for other in (None, np.arange(200)):
        made, same = (
            each.predict(ASKED.bits, asked, ASKED.descriptors, predictions=given, own=other)
            for each in (model, again)
        )
        for one, two in zip(made, same):
            np.testing.assert_allclose(one, two, rtol=1e-9)
    assert again.quantile(0.1) == model.quantile(0.1)
    if given is not None:
        with pytest.raises(InputError, match="fitted with predictions of your own"):
            again.predict(ASKED.bits, asked, ASKED.descriptors)


def test_errors_of_the_users_own_predictions_are_found_without_a_spread():
    rng = np.random.default_rng(5)
    # wrong in one family alone, in which our own models are right
    wrong = {id(made): np.unpackbits(made.bits, axis=1) @ np.ones(2048) for made in (KNOWN, ASKED)}
    own = {}
    for made in (KNOWN, ASKED):
        bits = np.unpackbits(made.bits, axis=1)[:, :300].sum(axis=1)
        wrong[id(made)] = np.where(bits > np.median(bits), 3.0, 0.1)
        own[id(made)] = made.labels + wrong[id(made)] * rng.normal(size=len(bits))
    model = fitted(predictions=own[id(KNOWN)])
    made = model.predict(ASKED.bits, {}, ASKED.descriptors, predictions=own[id(ASKED)])
    np.testing.assert_array_equal(made.prediction, own[id(ASKED)])
    assert spearmanr(made.expected_error, wrong[id(ASKED)]).statistic > 0.4


def test_labels_of_0_and_1_make_probabilities():
    cut = np.median(KNOWN.labels)
    model = fitted(labels=(KNOWN.labels > cut).astype(float))
    assert model.binary
    assert any("end at 0 and 1" in note for note in model.notes)
    made = model.predict(ASKED.bits, {}, ASKED.descriptors)
    errors = np.abs((ASKED.labels > cut) - made.prediction)
    assert 0 <= made.prediction.min() and made.prediction.max() <= 1
    assert spearmanr(made.expected_error, errors).statistic > 0.3
    lower, upper = model.interval(made, 0.1)
    assert lower.min() >= 0 and upper.max() <= 1


def test_what_cannot_be_fitted_is_told():
    few, labels = made_up(40), KNOWN.labels.copy()
    with pytest.raises(InputError, match="at least 60 labelled molecules, there are 40"):
        fitted(few)
    with pytest.raises(InputError, match="all 260 labels are 5"):
        fitted(labels=np.full(260, 5.0))
    labels[7] = np.nan
    with pytest.raises(InputError, match="label: 1 of 260 values .* molecule 7"):
        fitted(labels=labels)
    with pytest.raises(InputError, match="at least 10 molecules of each, there are 3"):
        fitted(labels=(np.arange(260) < 3).astype(float))
    with pytest.raises(InputError, match="predictions: 1 of 260"):
        fitted(predictions=labels)
    with pytest.raises(InputError, match="mlp is not there: .* needs unimol, unimol2 or minimol"):
        fitted(property_model="mlp")


def test_the_order_in_which_a_file_gives_its_views_changes_nothing(monkeypatch):
    """safetensors gives arrays in no order: with two encoders inputs must find their columns."""
    rng = np.random.default_rng(5)

    def two_views(made: MadeUp) -> dict[str, np.ndarray]:
        other = 10 * rng.random((len(made.bits), 3)).astype(np.float32)
        return {"unimol": made.views["minimol"], "minimol": other}

    model, asked = fitted(views=two_views(KNOWN)), two_views(ASKED)
    expected = model.predict(ASKED.bits, asked, ASKED.descriptors)
    files = model.save()
    for turned in (False, True):
        read = saved.read_arrays
        monkeypatch.setattr(
            saved, "read_arrays", lambda c, r=read, t=turned: dict(sorted(r(c).items(), reverse=t))
        )
        found = ErrorModel.load(files).predict(ASKED.bits, asked, ASKED.descriptors)
        for ours, theirs in zip(found, expected):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        monkeypatch.undo()
    with pytest.raises(ValueError, match="expected other"):
        stacked({"one": np.zeros(3)}, ["other"])
