"""Group DRO against loops over domains and molecules in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.detectors.heads.domain_weights import DomainWeights, robust_loss
from pipeline.detectors.heads.losses import LOSSES, training_loss
from tests.detectors.made_inputs import settings

N_ID, N_OOD = 12, 9


def pair_loss(margin: float, s) -> float:
    if s.loss == "dpo":
        return math.log1p(math.exp(-s.dpo_beta * margin))
    hinge = max(0.0, s.hinge_margin - margin)
    return hinge**2 if s.hinge_squared else hinge


def own_loss(energy: float, label: int, s) -> float:
    p = 1 / (1 + math.exp(-energy))
    return (p - label) ** 2 if s.loss == "mse" else -math.log(p if label else 1 - p)


def hardest(losses: list[float], s) -> float:
    share = s.hinge_topk if s.loss == "hinge" else 1.0
    return np.mean(sorted(losses, reverse=True)[: max(1, round(share * len(losses)))])


def losses_of(ids, oods, s) -> tuple[list[float], list[float]]:
    if s.loss in ("bce", "mse"):
        return [own_loss(e, 0, s) for e in ids], [own_loss(e, 1, s) for e in oods]
    return (
        [hardest([pair_loss(o - i, s) for o in oods], s) for i in ids],
        [hardest([pair_loss(o - i, s) for i in ids], s) for o in oods],
    )


CASES = [
    {"loss": "dpo", "dpo_beta": 0.7},
    {"loss": "bce"},
    {"loss": "mse"},
    {"loss": "hinge"},
    {"loss": "hinge", "hinge_topk": 0.4, "hinge_squared": True},
]


def batches(n: int):
    rng = np.random.default_rng(4)
    for _ in range(n):
        energies = (rng.normal(0, 1.5, N_ID), rng.normal(0.4, 1.5, N_OOD))
        yield energies, (rng.integers(0, 3, N_ID), rng.integers(1, 5, N_OOD))


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_weights_and_loss_equal_loops_over_several_batches(changes):
    s = settings(lambda_reg=0.03, group_weights="dro", group_step=0.2, **changes)
    mine = DomainWeights(4, s.group_step), DomainWeights(5, s.group_step)  # one never comes up
    expected_weights = [[1 / 4] * 4, [1 / 5] * 5]
    for energies, domains in batches(5):
        expected = s.lambda_reg * sum(np.mean(e**2) for e in energies)
        for kind, losses in enumerate(losses_of(*energies, s)):
            q = expected_weights[kind]
            groups = [
                [loss for loss, d in zip(losses, domains[kind]) if d == g] for g in range(len(q))
            ]
            means = [np.mean(group) if group else 0.0 for group in groups]
            q = [w * math.exp(s.group_step * mean) for w, mean in zip(q, means)]
            expected_weights[kind] = [w / sum(q) for w in q]
            expected += 0.5 * sum(w * m for w, m in zip(expected_weights[kind], means))
        tensors = [torch.tensor(x) for x in (*energies, *domains)]
        assert robust_loss(*tensors, mine, s).item() == pytest.approx(expected, rel=1e-10)
        for weights, wanted in zip(mine, expected_weights):
            np.testing.assert_allclose(weights.weights, wanted, rtol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_with_one_domain_of_each_kind_it_is_the_usual_loss(loss):
    s = settings(loss=loss)
    (ids, oods), _ = next(batches(1))
    ids = ids[:N_OOD]  # as many of each kind
    domains = torch.zeros(N_OOD, dtype=torch.int64)
    mine = DomainWeights(1, 0.01), DomainWeights(1, 0.01)
    energies = torch.tensor(ids), torch.tensor(oods)
    found = robust_loss(*energies, domains, domains, mine, s)
    assert found.item() == pytest.approx(training_loss(*energies, s).item(), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_reach_energies_and_not_weights(loss):
    (ids, oods), (id_domains, ood_domains) = next(batches(1))
    leaves = [torch.tensor(e, dtype=torch.float32, requires_grad=True) for e in (ids, oods)]
    mine = DomainWeights(3, 0.01), DomainWeights(5, 0.01)
    domains = torch.tensor(id_domains), torch.tensor(ood_domains)
    robust_loss(*leaves, *domains, mine, settings(loss=loss)).backward()
    assert all(torch.isfinite(leaf.grad).all() and leaf.grad.any() for leaf in leaves)
    assert not any(weights.log_weights.requires_grad for weights in mine)


def test_the_worse_domain_gains_weight_and_huge_losses_stay_finite():
    mine = DomainWeights(2, 0.01)
    for _ in range(100):
        loss = mine.weighted(torch.tensor([1e6, 2.0, 4.0]), torch.tensor([1, 0, 0]))
    assert mine.weights.tolist() == pytest.approx([0, 1]) and loss.item() == pytest.approx(1e6)
