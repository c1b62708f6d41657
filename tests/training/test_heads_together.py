"""Heads that train together are, each, what they are alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.detectors.heads.energy_head import EnergyHead
from pipeline.training.settings import TrainSettings
from pipeline.training.together.head_stack import HeadStack, Molecules
from pipeline.training.together.stacked_adamw import StackedAdamW, clip_gradients
from pipeline.training.worker.batches import ResidentBatches
from pipeline.training.worker.loop import TrainingState
from pipeline.training.worker.worker_setup import WorkerSetup
from tests.training import synthetic

CPU, WIDTH = torch.device("cpu"), 24
SIZES = {"id_train": 150, "ood_train": 90, "id_val": 60, "ood_val": 50}
# Heads that differ in all that a head may differ in.
DIFFERENT = (
    {"seed": 1},
    {"seed": 2, "lr": 3e-3, "weight_decay": 0.1, "dropout": 0.3},
    {"seed": 3, "dpo_beta": 1.0, "lambda_reg": 0.1, "grad_clip": 0.05, "dropout": 0.0},
    {"seed": 4, "loss": "hinge", "hinge_topk": 0.5, "lr_schedule": "cosine", "warmup_steps": 4},
    {"seed": 5, "loss": "bce", "lr_step_epochs": 1, "lr_decay": 0.5},
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def molecules() -> Molecules:
    rng = np.random.default_rng(3)
    rows = {
        role: torch.from_numpy(
            (rng.normal(size=(n, WIDTH)) + 0.25 * role.startswith("ood")).astype(np.float32)
        )
        for role, n in SIZES.items()
    }
    domains = torch.arange(150) % 4, torch.arange(90) % 3
    return Molecules(**rows, domains=domains)


def settings_of(**changes: Any) -> TrainSettings:
    usual = {"batch_size": 64, "lr": 1e-3, "epochs": 40, "early_stopping_patience": 4}
    return TrainSettings(data_file="none", **{**usual, **changes}).sized()


def alone(molecules: Molecules, settings: TrainSettings) -> TrainingState:
    """As `training_loop` would start it."""
    torch.manual_seed(settings.seed)
    head = EnergyHead(WIDTH, settings.hidden_dim, settings.dropout)
    groups = [{"params": list(head.parameters()), "lr": settings.lr}]
    batches = batches_of(molecules, settings)
    counts = (4, 3) if settings.group_weights == "dro" else ()
    validation = [molecules.id_val, molecules.ood_val]
    return TrainingState(
        settings, WorkerSetup(head, groups, batches, validation, WIDTH, counts), 3, CPU
    )


def batches_of(molecules: Molecules, settings: TrainSettings) -> ResidentBatches:
    rows = molecules.id_train, molecules.ood_train
    domains = molecules.domains if settings.group_weights == "dro" else None
    return ResidentBatches(*rows, settings.batch_size, settings.seed, 0, 1, CPU, domains)


def run_alone(molecules: Molecules, settings: TrainSettings, monkeypatch) -> TrainingState:
    monkeypatch.setattr("pipeline.training.worker.loop.rank", lambda: 0)
    state = alone(molecules, settings)
    while not state.finished:
        state.run_epoch(batches_of(molecules, settings), [molecules.id_val, molecules.ood_val])
    return state


def run_together(molecules: Molecules, many: list[TrainSettings]) -> HeadStack:
    if many[0].group_weights == "none":
        molecules = replace(molecules, domains=None)
    accumulated = many[0].gradient_accumulation_steps
    stack = HeadStack(many, molecules, -(-3 // accumulated))
    while not stack.finished:
        stack.run_epoch()
    return stack


@pytest.mark.parametrize(
    "common",
    [{}, {"group_weights": "dro", "group_step": 0.1}, {"gradient_accumulation_steps": 2}],
    ids=["plain", "dro", "accumulated"],
)
def test_after_ten_steps_each_head_is_what_it_is_alone(molecules, monkeypatch, common):
    """With dropout, clipping, schedules, losses and optimiser settings of their own."""
    many = [settings_of(epochs=4, **common, **each) for each in DIFFERENT]  # 12 steps
    stack = run_together(molecules, many)
    for settings, record in zip(many, stack.records):
        state = run_alone(molecules, settings, monkeypatch)
        assert record.epoch == 4 and record.best_epoch == state.best_epoch
        for name, tensor in state.best.items():
            assert record.best[name].shape == tensor.shape
            torch.testing.assert_close(record.best[name], tensor, rtol=0, atol=1e-6)
        for mine, theirs in zip(
            synthetic.without_times(record.history), synthetic.without_times(state.history)
        ):
            assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)


def test_heads_stop_at_epochs_of_their_own(molecules, monkeypatch):
    many = [settings_of(seed=seed, lr=lr) for seed in (1, 2, 3) for lr in (1e-3, 1e-2)]
    many.append(settings_of(seed=9, epochs=2))
    stack = run_together(molecules, many)
    assert len({record.epoch for record in stack.records}) > 2
    for settings, record in zip(many, stack.records):
        state = run_alone(molecules, settings, monkeypatch)
        assert (record.epoch, record.best_epoch) == (state.epoch, state.best_epoch)
        assert record.best_auroc == pytest.approx(state.best_auroc, abs=1e-3)
        assert len(record.history) == state.epoch


def test_a_resumed_stack_goes_on_to_the_same_heads(molecules):
    """From between two epochs, when some heads have finished."""
    many = [settings_of(**each) for each in DIFFERENT[:3]] + [settings_of(seed=9, epochs=2)]
    molecules = replace(molecules, domains=None)
    whole = HeadStack(many, molecules, 3)
    for _ in range(3):
        whole.run_epoch()
    assert len(whole.active) == 3
    resumed = HeadStack(many, molecules, 3)
    resumed.resume([{**state} for state in whole.state()])
    for stack in (whole, resumed):
        while not stack.finished:
            stack.run_epoch()
    for mine, theirs in zip(resumed.records, whole.records):
        assert synthetic.without_times(mine.history) == synthetic.without_times(theirs.history)
        for name, tensor in theirs.best.items():
            assert torch.equal(mine.best[name], tensor)


def test_a_head_that_diverges_fails_alone(molecules):
    many = [settings_of(seed=1, epochs=3), settings_of(seed=2, epochs=3, lr=1e30)]
    both = run_together(molecules, many)
    [single] = run_together(molecules, many[:1]).records
    good, bad = both.records
    assert "lower --lr" in bad.failure and good.failure is None
    for name, tensor in single.best.items():
        torch.testing.assert_close(good.best[name], tensor, rtol=0, atol=1e-6)


def test_the_stacked_optimiser_is_torchs():
    generator = torch.Generator().manual_seed(0)
    rates, decays, clips = [1e-3, 1e-2, 0.1], [0.0, 1e-3, 0.1], [0.1, 1.0, 100.0]
    start = {"weight": torch.randn(3, 5, 4, generator=generator), "bias": torch.zeros(3, 1, 4)}
    ours = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    adamw = StackedAdamW(ours)
    alone = [[tensor[i].clone().requires_grad_() for tensor in start.values()] for i in range(3)]
    theirs = [
        torch.optim.AdamW(tensors, lr=lr, weight_decay=decay)
        for tensors, lr, decay in zip(alone, rates, decays)
    ]
    for _ in range(20):
        for name, tensor in ours.items():
            tensor.grad = torch.randn(tensor.shape, generator=generator)
            for i in range(3):
                alone[i][list(ours).index(name)].grad = tensor.grad[i].clone()
        norms = clip_gradients(ours, clips)
        adamw.step(ours, rates, decays)
        for i, optimizer in enumerate(theirs):
            norm = torch.nn.utils.clip_grad_norm_(alone[i], clips[i])
            assert norms[i] == pytest.approx(norm.item(), rel=1e-6)
            optimizer.step()
    for i, tensors in enumerate(alone):
        for mine, tensor in zip(ours.values(), tensors):
            torch.testing.assert_close(mine[i], tensor, rtol=1e-6, atol=1e-7)
