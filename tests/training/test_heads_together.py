"""Heads that train together are, each, what they are alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.detectors.energy_head import EnergyHead
from pipeline.detectors.feature_space import FeatureSpace
from pipeline.encoding.views import EncodedViews
from pipeline.molecules.rejected import REJECTED
from pipeline.runtime import ray_train
from pipeline.runtime.cluster import MAX_RESOURCES
from pipeline.training.batches import ResidentBatches
from pipeline.training.loop import TrainingState
from pipeline.training.settings import TrainSettings
from pipeline.training.together import loop
from pipeline.training.together.head_stack import HeadStack, Molecules
from pipeline.training.together.stacked_adamw import StackedAdamW, clip_gradients
from pipeline.training.together.trainer import can_train_together, train_heads
from pipeline.training.trained import Trained
from pipeline.training.trainer import train_head
from pipeline.training.worker_setup import WorkerSetup
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
    monkeypatch.setattr("pipeline.training.loop.rank", lambda: 0)
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


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: v for name, v in epoch.items() if "time" not in name} for epoch in history]


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
        for mine, theirs in zip(without_times(record.history), without_times(state.history)):
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
        assert without_times(mine.history) == without_times(theirs.history)
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


# --- by Ray Train ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(ray_session, tmp_path_factory) -> tuple[Any, ...]:
    """Molecules, their features and the space, as `train_head` takes them."""
    molecules, encoded = synthetic.synthetic(tmp_path_factory.mktemp("store"))
    views = EncodedViews(molecules, REJECTED.empty_table(), encoded, {"minimol": encoded})
    return molecules, views, FeatureSpace.unchanged("minimol")


def some_heads(folder: Path, **changes: Any) -> list[TrainSettings]:
    usual = {"dropout": 0.1, "epochs": 12, "checkpoint_every": 3, "lr": 1e-3, **changes}
    return [
        synthetic.settings(folder / str(seed), seed=seed, dpo_beta=beta, **usual).sized()
        for seed, beta in ((1, 0.1), (2, 1.0), (3, 0.1))
    ]


def told(trained: Trained) -> tuple[bytes, list[dict[str, float]]]:
    return trained.files["model.safetensors"], without_times(trained.history)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> list[Trained]:
    return train_heads(*data, some_heads(tmp_path_factory.mktemp("whole")), "cpu")


def test_heads_are_trained_as_train_head_does(data, undisturbed, tmp_path):
    for settings, made in zip(some_heads(tmp_path), undisturbed):
        alone = train_head(*data, settings, "cpu")
        assert made.config == alone.config and made.stats["heads_together"] == 3
        assert made.stats.keys() - {"heads_together"} == alone.stats.keys()
        assert made.stats["best_epoch"] == alone.stats["best_epoch"]
        assert made.best_val_auroc == pytest.approx(alone.best_val_auroc, abs=1e-3)
        for mine, theirs in zip(told(made)[1], told(alone)[1], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def stop_after(reports: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> None:
    """Do something until Ctrl-C after so many checkpoints."""
    left = reports

    def report_and_stop(metrics: dict[str, Any], state: Callable[[], dict[str, Any]]) -> None:
        nonlocal left
        ray_train.report(metrics, state)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "report", report_and_stop)
        with pytest.raises(KeyboardInterrupt):
            work()


def test_heads_that_were_stopped_go_on_to_the_same(data, undisturbed, tmp_path, monkeypatch):
    heads = some_heads(tmp_path)
    stop_after(2, monkeypatch, lambda: train_heads(*data, heads, "cpu"))
    again = train_heads(*data, heads, "cpu")
    assert {made.stats["resumed_after_epoch"] for made in again} == {6}
    for mine, theirs in zip(again, undisturbed):
        assert told(mine) == told(theirs)
    folders = [folder for made in again for folder in made.leftovers]
    assert len(folders) == 1 and Path(folders[0]).is_dir()


def test_a_worker_of_its_own_trains_the_same_heads(data, undisturbed, tmp_path, monkeypatch):
    """As where a cluster may grow."""
    monkeypatch.setenv(MAX_RESOURCES, '{"CPU": 2}')
    made = train_heads(*data, some_heads(tmp_path), "cpu")
    assert {each.stats["ran_in"] for each in made} == {"workers"}
    for mine, theirs in zip(made, undisturbed):
        assert told(mine) == told(theirs)


def test_heads_whose_features_do_not_fit_train_one_after_the_other(data, tmp_path, caplog):
    made = train_heads(*data, some_heads(tmp_path, resident_gb=0.0, epochs=1)[:2], "cpu")
    assert "do not fit --resident_gb: 2 heads train one after the other" in caplog.text
    assert all("heads_together" not in each.stats for each in made)
    assert not any(each.stats["features_resident"] for each in made)


def test_a_failed_head_is_told_and_the_others_count(data, tmp_path):
    heads = some_heads(tmp_path, epochs=2)
    heads[1] = replace(heads[1], lr=1e30)
    first, second, third = train_heads(*data, heads, "cpu")
    assert isinstance(first, Trained) and isinstance(third, Trained)
    assert "lower --lr" in str(second) and third.leftovers and not first.leftovers


@pytest.mark.parametrize(
    ("changes", "device"),
    [
        ({"num_workers": 2}, "cpu"),
        ({"finetune_encoder": True}, "cpu"),
        ({}, "cuda"),
    ],
)
def test_what_trains_one_after_the_other(tmp_path, changes, device):
    assert can_train_together(some_heads(tmp_path), "cpu")
    assert not can_train_together(some_heads(tmp_path, **changes), device)
    assert not can_train_together(some_heads(tmp_path)[:1], "cpu")
    first, second, _ = some_heads(tmp_path)
    assert not can_train_together([first, replace(second, hidden_dim=8)], "cpu")
