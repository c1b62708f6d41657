"""Scores of networks on labels against formulas in float64 on their logits, and the training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp, softmax
from torch import nn

from pipeline.detectors.property_heads import property_head
from pipeline.detectors.property_heads.property_detectors import (
    EnergyWithExposure,
    Ensemble,
    FreeEnergy,
    MaximumSoftmax,
    MonteCarloDropout,
    Odin,
)
from pipeline.detectors.property_heads.property_head import Exposure, Task, train_layers
from pipeline.runtime.errors import InputError
from tests.detectors.made_inputs import (
    binary_labels,
    joined,
    made,
    settings,
    taken,
    value_labels,
)

ID, OOD, NEW = made(160, 0, own=True), made(80, 1, shift=2.5), made(50, 2)
CLASSES, VALUES = binary_labels(ID), value_labels(ID)
SETTINGS = settings(property_patience=5, ensemble_size=3, mc_passes=4)


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    monkeypatch.setattr(property_head, "MOST_EPOCHS", 60)


def network(detector, number: int = 0) -> nn.Sequential:
    """A detector's network as torch has it: 64 x 3, ReLU."""
    a, layers = detector.arrays, []
    for depth in range(4):
        weight = torch.from_numpy(a[f"{number}.weight.{depth}"]).double()
        linear = nn.Linear(weight.shape[1], weight.shape[0]).double()
        linear.weight.data = weight
        linear.bias.data = torch.from_numpy(a[f"{number}.bias.{depth}"]).double()
        layers += [linear, nn.ReLU()]
    assert [tuple(m.weight.shape) for m in layers[::2]][1:3] == [(64, 64), (64, 64)]
    return nn.Sequential(*layers[:-1])


def logits(detector, inputs, number: int = 0) -> np.ndarray:
    return network(detector, number)(torch.from_numpy(inputs.features).double()).detach().numpy()


def test_msp_and_energy_equal_their_formulas():
    msp = MaximumSoftmax.fit(ID, None, CLASSES, SETTINGS, 0)
    expected = -softmax(logits(msp, NEW), axis=1).max(axis=1)
    np.testing.assert_allclose(msp.scores(NEW), expected, atol=1e-12)
    energy = FreeEnergy.fit(ID, None, CLASSES, SETTINGS, 0)
    np.testing.assert_allclose(energy.scores(NEW), -logsumexp(logits(energy, NEW), axis=1))


@pytest.mark.parametrize("temperature, epsilon", [(1000.0, 0.0014), (2.0, 0.05), (1.0, 0.0)])
def test_odin_equals_its_formula_with_a_gradient_by_differences(temperature, epsilon):
    chosen = settings(property_patience=5, odin_temperature=temperature, odin_epsilon=epsilon)
    odin = Odin.fit(ID, None, CLASSES, chosen, 0)
    model = network(odin)

    def log_likelier(x: np.ndarray) -> np.ndarray:
        z = model(torch.from_numpy(x)).detach().numpy() / temperature
        return (z - logsumexp(z, axis=1, keepdims=True)).max(axis=1)

    x, step = NEW.features.astype(np.float64), 1e-6
    gradient = np.empty_like(x)
    for column in range(x.shape[1]):
        ahead, behind = x.copy(), x.copy()
        ahead[:, column] += step
        behind[:, column] -= step
        gradient[:, column] = log_likelier(ahead) - log_likelier(behind)
    expected = -np.exp(log_likelier(x + epsilon * np.sign(gradient)))
    np.testing.assert_allclose(odin.scores(NEW), expected, atol=1e-9)
    if epsilon == 0:
        msp = MaximumSoftmax.fit(ID, None, CLASSES, chosen, 0)
        np.testing.assert_allclose(odin.scores(NEW), msp.scores(NEW), atol=1e-12)


@pytest.mark.parametrize("labels, of_outputs", [
    (CLASSES, lambda z: expit(z[:, 1] - z[:, 0])),
    (VALUES, lambda z: z[:, 0] * VALUES.std()),
], ids=["classes", "values"])  # fmt: skip
def test_an_ensembles_score_is_the_variance_of_its_members_predictions(labels, of_outputs):
    ensemble = Ensemble.fit(ID, None, labels, SETTINGS, 0)
    predicted = [of_outputs(logits(ensemble, NEW, number)) for number in range(3)]
    assert "3.weight.0" not in ensemble.arrays
    np.testing.assert_allclose(ensemble.scores(NEW), np.var(predicted, axis=0), rtol=1e-9)
    assert ensemble.scores(NEW).min() > 0


@pytest.mark.parametrize("labels", [CLASSES, VALUES], ids=["classes", "values"])
def test_mc_dropouts_score_is_the_variance_over_its_masks(labels):
    detector = MonteCarloDropout.fit(ID, None, labels, SETTINGS, 0)
    masks = detector.arrays["masks"]
    assert masks.shape == (4, 3, 64) and 0.35 < masks.mean() < 0.65
    model, predicted = network(detector), []
    for mask in masks:
        hidden = torch.from_numpy(NEW.features).double()
        for depth in range(3):
            hidden = torch.relu(model[2 * depth](hidden)) * torch.from_numpy(mask[depth] * 2.0)
        z = model[6](hidden).detach().numpy()
        predicted.append(expit(z[:, 1] - z[:, 0]) if labels is CLASSES else z[:, 0] * VALUES.std())
    np.testing.assert_allclose(detector.scores(NEW), np.var(predicted, axis=0), rtol=1e-9)


def test_the_loss_of_exposure_equals_a_loop():
    rng = np.random.default_rng(0)
    z_id, z_ood = rng.normal(3, 2, (7, 2)), rng.normal(3, 2, (5, 2))
    expected = 0.3 * (
        np.mean([max(0, -logsumexp(z) + 4.0) ** 2 for z in z_id])
        + np.mean([max(0, -2.0 + logsumexp(z)) ** 2 for z in z_ood])
    )
    exposure = Exposure(OOD.features, 0.3, margin_id=-4.0, margin_ood=-2.0)
    loss = exposure.loss(torch.from_numpy(z_id), torch.from_numpy(z_ood))
    assert loss.item() == pytest.approx(expected, rel=1e-12) and expected > 0


def test_exposure_parts_the_energies_that_labels_alone_do_not():
    chosen = settings(property_patience=20)
    exposed = EnergyWithExposure.fit(ID, OOD, CLASSES, chosen, 0)
    new_ood = made(50, 3, shift=2.5)
    np.testing.assert_allclose(exposed.scores(NEW), -logsumexp(logits(exposed, NEW), axis=1))
    alone = FreeEnergy.fit(ID, None, CLASSES, chosen, 0)
    gaps = [d.scores(new_ood).mean() - d.scores(NEW).mean() for d in (alone, exposed)]
    assert gaps[1] > 0 > gaps[0]


def test_a_trained_network_predicts_new_labels():
    many = made(800, 5, own=True)
    chosen = settings(property_dropout=0.1, property_patience=15)
    classifier = MaximumSoftmax.fit(many, None, binary_labels(many), chosen, 0)
    right = logits(classifier, NEW).argmax(axis=1) == binary_labels(NEW)
    assert right.mean() > 0.85
    ensemble = Ensemble.fit(many, None, value_labels(many), settings(ensemble_size=2), 0)
    assert np.corrcoef(logits(ensemble, NEW)[:, 0], value_labels(NEW))[0, 1] > 0.7


def test_molecules_without_a_label_are_left_out_and_said(caplog):
    holes = CLASSES.copy()
    holes[::4] = np.nan
    task = Task.of(holes, "msp")
    with_holes = train_layers(ID.features, holes, task, SETTINGS, 0)
    known = np.isfinite(holes)
    without = train_layers(ID.features[known], holes[known], task, SETTINGS, 0)
    assert "40 of 160 ID molecules have no label and are left out" in caplog.text
    assert all(torch.equal(a, b) for x, y in zip(with_holes, without) for a, b in zip(x, y))


@pytest.mark.parametrize("detector", [MaximumSoftmax, Odin, FreeEnergy, EnergyWithExposure])
def test_values_are_refused_where_classes_are_needed(detector):
    with pytest.raises(InputError, match="0 and 1.*mc_dropout and ensemble take values"):
        detector.fit(ID, OOD, VALUES, SETTINGS, 0)


def test_labels_that_teach_nothing_are_errors():
    with pytest.raises(InputError, match="msp cannot learn from labels that are all 1"):
        MaximumSoftmax.fit(ID, None, np.ones(160), SETTINGS, 0)
    few = np.full(160, np.nan)
    few[:9] = CLASSES[:9]
    with pytest.raises(InputError, match="ensemble needs at least 10 labels .* got 9"):
        Ensemble.fit(ID, None, few, SETTINGS, 0)
    with pytest.raises(InputError, match="mc_dropout needs --property_dropout above 0"):
        MonteCarloDropout.fit(ID, None, CLASSES, settings(property_dropout=0.0), 0)
    with pytest.raises(InputError, match="energy_oe needs at least 2 OOD"):
        EnergyWithExposure.fit(ID, taken(OOD, slice(0, 1)), CLASSES, SETTINGS, 0)


def test_one_molecule_of_a_class_is_enough_to_train():
    rare = np.zeros(160)
    rare[5] = 1
    scores = MaximumSoftmax.fit(ID, None, rare, SETTINGS, 0).scores(joined(ID, NEW))
    assert np.isfinite(scores).all()
