"""Heads that train together by Ray Train: results, stopped runs, what trains one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.detectors.feature_space import FeatureSpace
from pipeline.encoding.views import EncodedViews
from pipeline.molecules.rejected import REJECTED
from pipeline.runtime.nodes.cluster import MAX_RESOURCES
from pipeline.training.settings import TrainSettings
from pipeline.training.together import loop
from pipeline.training.together.trainer import can_train_together, train_heads
from pipeline.training.trained import Trained
from pipeline.training.trainer import train_head
from tests.stopped import stopped_at_a_checkpoint
from tests.training import synthetic


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
    return trained.files["model.safetensors"], synthetic.without_times(trained.history)


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


@pytest.mark.parametrize("least_stack", [loop.ONE_STACK_BYTES, 0])
def test_heads_that_were_stopped_go_on_to_the_same(
    data, undisturbed, tmp_path, monkeypatch, least_stack
):
    """Also in several stacks, which threads share."""
    heads = some_heads(tmp_path)
    with stopped_at_a_checkpoint(loop, 2):
        train_heads(*data, heads, "cpu")
    monkeypatch.setattr(loop, "ONE_STACK_BYTES", least_stack)
    again = train_heads(*data, heads, "cpu")
    assert {made.stats["resumed_after_epoch"] for made in again} == {6}
    for mine, theirs in zip(again, undisturbed):
        (weights, epochs), (expected, course) = told(mine), told(theirs)
        assert weights == expected
        for epoch, other in zip(epochs, course, strict=True):
            assert epoch == pytest.approx(other, rel=1e-6)
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
    assert "do not fit --resident_gb" in caplog.text
    assert "2 heads train one after the other" in caplog.text
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
