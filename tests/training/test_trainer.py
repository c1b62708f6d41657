"""Training on stored features: the recipe, any number of workers, streams, what is written."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from traceback import format_exception
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from ray.train import TrainingFailedError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import WorkerGroupError
from sklearn.metrics import roc_auc_score

from pipeline.detectors.heads.energy_head import energies_of
from pipeline.runtime.errors import DamagedFile, InputError, RowsMissing
from pipeline.runtime.train import ray_train, train_here
from pipeline.store.keyed_table import KeyedTable, feature_matrix
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from tests.training.synthetic import (
    PATIENCE,
    ROLES,
    SIZES,
    Run,
    encoded_in,
    features_of,
    plain_loop,
    settings,
    synthetic,
    train,
)


@pytest.fixture(scope="module")
def data(ray_session, tmp_path_factory):
    return synthetic(tmp_path_factory.mktemp("store"))


def fit(data, tmp_path_factory, **changes) -> Run:
    folder = tmp_path_factory.mktemp("run")
    return Run(folder, train(*data, settings(folder, **changes), "cpu"))


@pytest.fixture(scope="module")
def one_worker(data, tmp_path_factory) -> Run:
    return fit(data, tmp_path_factory)


@pytest.fixture(scope="module")
def two_workers(data, tmp_path_factory) -> Run:
    return fit(data, tmp_path_factory, num_workers=2)


@pytest.fixture(scope="module")
def streams(data, tmp_path_factory) -> tuple[Run, ...]:
    """Streamed training for a few epochs with one worker, and with two."""
    few = {"resident_gb": 0.0, "epochs": 2, "lr": 3e-3}
    return tuple(fit(data, tmp_path_factory, num_workers=n, **few) for n in (1, 2))


# --- the recipe -----------------------------------------------------------------------------


def test_training_equals_a_plain_loop_of_the_recipe(data, one_worker):
    losses, aurocs, best = plain_loop(*data, settings(one_worker.folder))
    assert len(losses) > 10  # past the first decay of the learning rate
    np.testing.assert_allclose(one_worker.column("loss"), losses, rtol=1e-5)
    np.testing.assert_allclose(one_worker.column("val_auroc"), aurocs, atol=1e-3)
    for ours, theirs in zip(one_worker.weights, best):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_two_workers_agree_with_one_to_rounding(one_worker, two_workers):
    assert two_workers.stats["num_workers"] == 2
    for name in ("loss", "misranked_share", "near_boundary_share", "mean_margin"):
        np.testing.assert_allclose(
            two_workers.column(name), one_worker.column(name), rtol=1e-4, atol=1e-4, err_msg=name
        )
    assert two_workers.stats["best_epoch"] == one_worker.stats["best_epoch"]
    for ours, theirs in zip(two_workers.weights, one_worker.weights):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_early_stopping_ends_training_and_keeps_the_best_epochs_head(data, one_worker):
    aurocs = one_worker.column("val_auroc")
    best = one_worker.stats["best_epoch"]
    assert len(aurocs) == best + PATIENCE < 60
    assert one_worker.stats["best_val_auroc"] == max(aurocs) == aurocs[best - 1]
    assert max(aurocs) > aurocs[-1]
    head = load_checkpoint(str(one_worker.folder / "checkpoint")).head
    e_id, e_ood = (energies_of(head, features_of(*data, r).numpy()) for r in ("id_val", "ood_val"))
    labels = np.repeat([0, 1], [len(e_id), len(e_ood)])
    assert roc_auc_score(labels, np.concatenate([e_id, e_ood])) == pytest.approx(max(aurocs))


# --- streams --------------------------------------------------------------------------------


def test_a_streamed_set_trains_as_well_as_a_resident_one(one_worker, streams):
    streamed, _ = streams
    assert one_worker.stats["features_resident"] is True
    assert streamed.stats["features_resident"] is False
    losses = streamed.column("loss")
    assert losses == sorted(losses, reverse=True)
    best = one_worker.stats["best_val_auroc"]
    assert streamed.stats["best_val_auroc"] == pytest.approx(best, abs=0.03)


def test_streams_give_two_workers_the_same_batches_as_one(streams):
    alone, together = streams
    np.testing.assert_allclose(together.column("loss"), alone.column("loss"), rtol=1e-5)
    for ours, theirs in zip(together.weights, alone.weights):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


class SlowFirstShard(KeyedTable):
    """A table whose first shard takes longest to read, so that it is read last."""

    def read_places(self, places: pa.Table) -> pa.Table:
        if "/run0-" in places["shard"][0].as_py():
            time.sleep(2)
        return super().read_places(places)


def test_every_worker_streams_rows_in_the_stores_order(data, tmp_path, monkeypatch):
    molecules, encoded = data
    made = {}

    class Recorder:
        def __init__(self, *_: Any, **arguments: Any):
            made.update(arguments)

        def fit(self):
            raise InterruptedError

        running_in_local_mode = False

    for module in (ray_train, train_here):
        monkeypatch.setattr(module, "TorchTrainer", Recorder)
    table = SlowFirstShard("unused", "features", {})
    table.uri = encoded.features.uri
    keys = molecules["key"].to_pylist()[: SIZES[0]]
    places = encoded.features.places(keys, encoded.features.index())
    expected = encoded.features.read_features(places["key"].to_pylist())
    for workers in (1, 2):
        wanted = settings(tmp_path, resident_gb=0.0, num_workers=workers)
        with pytest.raises(InterruptedError):
            train(molecules, encoded_in(table), wanted, "cpu")
        shards = made["datasets"]
        assert made["scaling_config"].num_workers == (0 if workers == 1 else 2)
        if workers > 1:
            shards, _ = made["dataset_config"].configure(shards, workers, None, None)
        blocks = shards["id_train"].iter_batches(batch_size=None, batch_format="pyarrow")
        found = np.concatenate([feature_matrix(block) for block in blocks])
        np.testing.assert_array_equal(found, expected)


# --- what is written ------------------------------------------------------------------------


def test_statistics_hold_times_and_memory(one_worker):
    stats = json.loads((one_worker.folder / "training_stats.json").read_text())
    assert stats == one_worker.stats
    times = one_worker.column("epoch_time_seconds")
    assert stats["epochs"] == len(times)
    both = stats["train_time_seconds"] + stats["eval_time_seconds"]
    assert both == pytest.approx(sum(times)) and min(times) > 0
    assert min(stats["train_time_seconds"], stats["eval_time_seconds"]) > 0
    assert stats["avg_epoch_time_seconds"] == pytest.approx(np.mean(times))
    assert stats["peak_gpu_memory_train_gb"] == stats["peak_gpu_memory_encoding_gb"] == 0
    assert stats["peak_resident_memory_train_gb"] > 0.05
    assert stats["peak_resident_memory_eval_gb"] > 0.05
    assert stats["peak_resident_memory_encoding_gb"] == 0.25
    assert (stats["encoder"], stats["weights"]) == ("synthetic", "none")
    assert stats["molecules"] == dict(zip(ROLES, SIZES))


def test_dynamics_have_one_line_an_epoch(one_worker):
    lines = one_worker.dynamics
    assert [int(line["epoch"]) for line in lines] == list(range(1, one_worker.stats["epochs"] + 1))
    for name in ("misranked_share", "near_boundary_share", "val_auroc"):
        assert all(0 <= value <= 1 for value in one_worker.column(name))
    assert one_worker.column("mean_margin")[-1] > one_worker.column("mean_margin")[0]
    assert one_worker.column("misranked_share")[-1] < one_worker.column("misranked_share")[0]
    assert {(line["encoder"], line["weights"]) for line in lines} == {("synthetic", "none")}


def test_a_finished_run_leaves_no_state(one_worker, two_workers):
    """Else the same command would find it finished instead of training again."""
    for run, where in ((one_worker, "driver"), (two_workers, "workers")):
        assert run.stats["ran_in"] == where
        assert not list((run.folder / ".ray_train").glob("*/*"))


@pytest.mark.parametrize(
    ("told", "kind", "match"),
    [
        (DamagedFile("a is damaged"), DamagedFile, "^a is damaged"),
        (RowsMissing("3 of 9 keys are not in a"), DamagedFile, "^3 of 9 keys are not in a$"),
        (InputError("cannot write a: no"), InputError, "^cannot write a: no$"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), InputError, "a disk is full"),
        (torch.OutOfMemoryError("CUDA out of memory."), InputError, "out of memory; take less"),
        (MemoryError("1 GiB"), InputError, "out of memory; take less"),
        (ValueError("no"), TrainingFailedError, "ValueError: no"),
    ],
)
@pytest.mark.parametrize("here", [True, False])
def test_what_ended_the_workers_is_told_as_what_it_is(told, kind, match, here):
    def fails():
        if here:
            raise told
        wrapped = UserExceptionWithTraceback(told, "".join(format_exception(told)))
        raise WorkerGroupError(str(wrapped), {0: wrapped})

    with pytest.raises(type(told) if here and kind is TrainingFailedError else kind) as error:
        ray_train.fit(SimpleNamespace(fit=fails), "take less")
    assert re.search("no$" if here and kind is TrainingFailedError else match, str(error.value))
