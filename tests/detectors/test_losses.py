"""The head, its losses and the dynamics against formulas written out pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.detectors.heads.energy_head import EnergyHead
from pipeline.detectors.heads.losses import LOSSES, pair_dynamics, training_loss
from pipeline.training.settings import TrainSettings


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"data_file": "unused", "lambda_reg": 0.0, **changes})


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dpo(ids, oods, s) -> float:
    return np.mean([math.log1p(math.exp(-s.dpo_beta * (o - i))) for i in ids for o in oods])


def bce(ids, oods, s) -> float:
    parts = [-math.log(1 - sigmoid(i)) for i in ids] + [-math.log(sigmoid(o)) for o in oods]
    return np.mean(parts)


def mse(ids, oods, s) -> float:
    return np.mean([sigmoid(i) ** 2 for i in ids] + [(sigmoid(o) - 1) ** 2 for o in oods])


def hinge(ids, oods, s) -> float:
    parts = [max(0.0, s.hinge_margin - (o - i)) for i in ids for o in oods]
    hardest = sorted(parts, reverse=True)[: max(1, round(s.hinge_topk * len(parts)))]
    return np.mean([part**2 if s.hinge_squared else part for part in hardest])


CASES = {
    "dpo": (dpo, {"loss": "dpo"}),
    "dpo, other temperature": (dpo, {"loss": "dpo", "dpo_beta": 1.7}),
    "bce": (bce, {"loss": "bce"}),
    "mse": (mse, {"loss": "mse"}),
    "hinge": (hinge, {"loss": "hinge"}),
    "hinge, other margin": (hinge, {"loss": "hinge", "hinge_margin": 0.3}),
    "hinge, top-k": (hinge, {"loss": "hinge", "hinge_topk": 0.25}),
    "hinge, top-k of one pair": (hinge, {"loss": "hinge", "hinge_topk": 1e-6}),
    "hinge, squared": (hinge, {"loss": "hinge", "hinge_squared": True}),
    "hinge, squared top-k": (
        hinge,
        {"loss": "hinge", "hinge_squared": True, "hinge_topk": 0.4, "hinge_margin": 2.0},
    ),
}


@pytest.fixture
def energies() -> tuple[torch.Tensor, torch.Tensor]:
    """Energies of unequal numbers, in float64, so that only the formula can differ."""
    rng = np.random.default_rng(3)
    return torch.tensor(rng.normal(0, 1.5, 13)), torch.tensor(rng.normal(0.4, 1.5, 9))


def test_every_loss_is_checked():
    assert {changes["loss"] for _, changes in CASES.values()} == set(LOSSES)


@pytest.mark.parametrize("formula, changes", CASES.values(), ids=CASES)
def test_loss_equals_its_formula_over_explicit_loops(formula, changes, energies):
    s = settings(**changes)
    expected = formula(energies[0].tolist(), energies[1].tolist(), s)
    assert expected > 0
    assert training_loss(*energies, s).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_regularization_adds_the_mean_squares_of_both_kinds(loss, energies):
    ids, oods = (e.tolist() for e in energies)
    squares = sum(i * i for i in ids) / len(ids) + sum(o * o for o in oods) / len(oods)
    plain = training_loss(*energies, settings(loss=loss))
    with_term = training_loss(*energies, settings(loss=loss, lambda_reg=0.37))
    assert (with_term - plain).item() == pytest.approx(0.37 * squares, rel=1e-10)


@pytest.mark.parametrize("changes", [changes for _, changes in CASES.values()], ids=CASES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_loss_and_gradients_are_finite_even_for_huge_energies(changes, scale, energies):
    leaves = [(scale * e).float().requires_grad_() for e in energies]
    loss = training_loss(*leaves, settings(lambda_reg=0.01, **changes))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_push_id_energies_down_and_ood_energies_up(loss):
    ids, oods = torch.zeros(4, requires_grad=True), torch.zeros(3, requires_grad=True)
    training_loss(ids, oods, settings(loss=loss)).backward()
    assert (ids.grad > 0).all() and (oods.grad < 0).all()


def test_pair_dynamics_equal_explicit_counts():
    ids, oods = [0.0, 1.0, -0.5, 0.26], [0.25, 1.0, -2.0]
    deltas = [o - i for i in ids for o in oods]
    dynamics = pair_dynamics(torch.tensor(ids), torch.tensor(oods))
    assert sum(d < 0 for d in deltas) == 6 and 0.0 in deltas  # a tie is not misranked
    assert dynamics == {
        "misranked_share": pytest.approx(6 / 12),
        "near_boundary_share": pytest.approx(sum(abs(d) < 0.05 for d in deltas) / 12),
        "mean_margin": pytest.approx(sum(deltas) / 12),
    }
    assert dynamics["near_boundary_share"] == pytest.approx(2 / 12)


def test_pair_dynamics_equal_explicit_counts_for_random_energies(energies):
    deltas = [o - i for i in energies[0].tolist() for o in energies[1].tolist()]
    dynamics = pair_dynamics(*energies)
    assert dynamics["misranked_share"] == pytest.approx(np.mean([d < 0 for d in deltas]))
    assert dynamics["near_boundary_share"] == pytest.approx(
        np.mean([abs(d) < 0.05 for d in deltas])
    )
    assert dynamics["mean_margin"] == pytest.approx(np.mean(deltas))


def test_head_is_512_to_256_to_128_to_1_with_relu_and_dropout():
    layers = list(EnergyHead(512).layers)
    kinds = [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in layers] == kinds
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(512, 256), (256, 128), (128, 1)]
    assert all(m.bias is not None for m in linear)
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.1, 0.1]


def test_head_equals_its_matrix_products_and_gives_one_energy_a_molecule():
    torch.manual_seed(0)
    head = EnergyHead(6, hidden_dim=8).double().eval()
    x = torch.randn(5, 6, dtype=torch.float64)
    first, second, last = (m for m in head.layers if isinstance(m, nn.Linear))
    hidden = x.numpy()
    for layer in (first, second):
        hidden = np.maximum(hidden @ layer.weight.detach().numpy().T + layer.bias.tolist(), 0)
    expected = (hidden @ last.weight.detach().numpy().T + last.bias.tolist())[:, 0]
    assert head(x).shape == (5,)
    np.testing.assert_allclose(head(x).detach().numpy(), expected, rtol=1e-12)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    head, x = EnergyHead(16, dropout=0.5), torch.randn(4, 16)
    assert not torch.equal(head.train()(x), head(x))
    assert torch.equal(head.eval()(x), head(x))


@pytest.mark.parametrize("loss", LOSSES)
def test_after_training_ood_molecules_have_the_higher_energies(loss):
    torch.manual_seed(0)
    ids, oods = torch.randn(64, 8) - 0.5, torch.randn(48, 8) + 0.5
    s = settings(loss=loss, lambda_reg=0.01)
    head = EnergyHead(8, hidden_dim=16, dropout=0.0)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        training_loss(head(ids), head(oods), s).backward()
        optimizer.step()
    assert pair_dynamics(head(ids), head(oods))["misranked_share"] < 0.1
    assert head(oods).mean() > head(ids).mean()
