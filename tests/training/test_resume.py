"""A training run that is stopped goes on from its last checkpoint, to the same weights."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.nodes.cluster import MAX_RESOURCES
from pipeline.training.run import run_training
from pipeline.training.settings import TrainSettings
from pipeline.training.worker import loop
from tests.commands import LIMIT_SECONDS, start_job, wait_until
from tests.held import hold
from tests.stopped import stopped_at_a_checkpoint

EPOCHS, CHECKPOINT_EVERY = 60, 15
MODEL = "checkpoint/model.safetensors"


@pytest.fixture(scope="module")
def split(moses_smiles, tmp_path_factory) -> Path:
    """40 molecules in DrugOOD's five splits."""
    names = ("train", "iid_val", "iid_test", "ood_val", "ood_test")
    items = {name: [{"smiles": s} for s in moses_smiles[i:40:5]] for i, name in enumerate(names)}
    path = tmp_path_factory.mktemp("resume") / "split.json"
    path.write_text(json.dumps({"split": items}))
    return path


def start(output: Path, split: Path, weights: Path) -> subprocess.Popen:
    """jobs.train with dropout, as a process that joins the tests' Ray."""
    return start_job("train", output, flags(output, split, weights), held=True)


def flags(output: Path, split: Path, weights: Path) -> dict[str, Any]:
    return {
        "data_file": str(split), "weights": str(weights), "output_dir": str(output),
        "cache_root": str(split.parent / "store"), "device": "cpu", "sampling": "all",
        "ood_val_by": "molecule", "epochs": EPOCHS, "early_stopping_patience": EPOCHS,
        "checkpoint_every": CHECKPOINT_EVERY, "encoder_workers": 1,
    }  # fmt: skip


def epochs_of(output: Path) -> list[str]:
    """The epochs in training_dynamics.csv without their times."""
    rows = (output / "training_dynamics.csv").read_text().splitlines()
    place = rows[0].split(",").index("epoch_time_seconds")
    return [",".join(c for i, c in enumerate(row.split(",")) if i != place) for row in rows]


def checkpoints(output: Path) -> set[str]:
    """Checkpoints that Ray Train has noted, which it does after the upload."""
    notes = output.glob(".ray_train/*/checkpoint_manager_snapshot.json")
    return {
        name for note in notes for name in re.findall(r"checkpoint_\d[^\"\\/]*", note.read_text())
    }


def new_checkpoints(output: Path, seen: set[str]) -> set[str]:
    """Those that were not there before."""
    return checkpoints(output) - seen


@pytest.fixture(scope="module")
def undisturbed(ray_session, encoder_in_process, split, small_weights) -> tuple[list[str], bytes]:
    """The epochs and the head's bytes of a run that was left alone."""
    output = split.parent / "whole"
    run_training(TrainSettings(**flags(output, split, small_weights)))
    epochs = epochs_of(output)
    assert len(epochs) == EPOCHS + 1
    return epochs, (output / MODEL).read_bytes()


def test_a_stopped_training_run_resumes_to_the_same_weights(
    undisturbed, split, small_weights, monkeypatch, tmp_path
):
    """Stopped in this process, then by Ctrl-C and by SIGKILL in workers; ended in this process.

    The commands train in workers of Ray Train's, as they do where a cluster may grow.
    """
    output = tmp_path / "broken"
    settings = TrainSettings(**flags(output, split, small_weights))
    with stopped_at_a_checkpoint(loop):
        run_training(settings)
    monkeypatch.setenv(MAX_RESOURCES, '{"CPU": 2}')
    seen: set[str] = set()
    for stop, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        hold(output, after=1)
        stopped = start(output, split, small_weights)
        wait_until(partial(new_checkpoints, output, seen), stopped, output)
        seen |= checkpoints(output)
        stopped.send_signal(stop)
        assert stopped.wait(timeout=LIMIT_SECONDS) == code
        log = (output / "log.txt").read_text()
        assert "Traceback" not in log
        assert "the same command continues" in log
        assert not (output / "checkpoint").exists()

    monkeypatch.delenv(MAX_RESOURCES)
    stats = run_training(settings)
    assert stats["ran_in"] == "driver"
    assert stats["resumed_after_epoch"] >= 2 * CHECKPOINT_EVERY
    epochs, model = undisturbed
    assert epochs_of(output) == epochs
    assert (output / MODEL).read_bytes() == model
    assert not list(output.glob(".ray_train/*/*"))


def test_a_run_that_stopped_in_its_driver_goes_on_there_to_the_same_weights(
    undisturbed, split, small_weights, tmp_path, monkeypatch
):
    """It also does so when it was stopped after its last epoch, before the model was written."""
    settings = TrainSettings(**flags(tmp_path / "here", split, small_weights))
    for _ in range(EPOCHS // CHECKPOINT_EVERY):
        with stopped_at_a_checkpoint(loop):
            run_training(settings)
        assert not (tmp_path / "here/checkpoint").exists()
    stats = run_training(settings)
    assert (stats["ran_in"], stats["resumed_after_epoch"]) == ("driver", EPOCHS)
    epochs, model = undisturbed
    assert epochs_of(tmp_path / "here") == epochs
    assert (tmp_path / "here" / MODEL).read_bytes() == model
    assert not list((tmp_path / "here/.ray_train").glob("*/*"))
