"""A training run that is killed goes on from its last checkpoint, as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.training import train
from tests.test_training import Run, settings, synthetic

REPOSITORY = Path(__file__).parent.parent
EPOCHS = 30
START_SECONDS = 180
DRIVER = """
import sys
from pathlib import Path
from pipeline.cluster import start_ray
from tests.test_resume import run

start_ray()
run(Path(sys.argv[1]))
"""


def run(folder: Path) -> Run:
    """Train for long enough to be killed; dropout's random numbers must go on too."""
    # Energies are random to nearly the end, so that the best epoch is one that was resumed.
    data = synthetic(folder / "store", (3000, 2500, 300, 200))
    recipe = {"epochs": EPOCHS, "early_stopping_patience": EPOCHS, "checkpoint_every": 1}
    stats = train(*data, settings(folder, dropout=0.1, batch_size=1024, **recipe))
    return Run(folder, stats)


def last_state(folder: Path) -> dict | None:
    """The latest Ray Train checkpoint of a run, or None while there is none."""
    for path in sorted(folder.glob(".ray_train/*/checkpoint_*/state.pt"), reverse=True):
        try:
            return torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError):  # just being written, or replaced
            continue
    return None


def kill_in_the_middle(folder: Path) -> dict:
    """Start a run as a process of its own, SIGKILL it, and give its last state."""
    with open(folder / "log.txt", "w") as log:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(folder)], cwd=REPOSITORY, stdout=log, stderr=log
        )
    deadline = time.monotonic() + START_SECONDS
    while last_state(folder) is None:
        assert driver.poll() is None, (folder / "log.txt").read_text()
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.05)
    driver.kill()
    assert driver.wait() == -9
    time.sleep(2)  # Ray ends the workers of a driver that is gone
    return last_state(folder)


@pytest.fixture(scope="module")
def undisturbed(ray_session, tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp("undisturbed"))


def test_a_killed_run_resumes_and_ends_as_an_undisturbed_one(undisturbed, tmp_path):
    state = kill_in_the_middle(tmp_path)
    done = state["progress"]["epoch"]
    assert 0 < done < EPOCHS
    assert not (tmp_path / "checkpoint").exists()

    resumed = run(tmp_path)
    # Epoch times never repeat, so those of the killed run show that its epochs were kept.
    kept = [epoch["epoch_time_seconds"] for epoch in state["progress"]["history"]]
    assert resumed.column("epoch_time_seconds")[:done] == kept
    assert resumed.stats["epochs"] == EPOCHS
    for name in ("loss", "misranked_share", "mean_margin", "val_auroc"):
        assert resumed.column(name) == undisturbed.column(name)
    ours, theirs = (
        (r.folder / "checkpoint" / "model.safetensors").read_bytes() for r in (resumed, undisturbed)
    )
    assert ours == theirs


def test_the_undisturbed_run_is_one_that_dropout_makes_hard_to_repeat(undisturbed):
    assert undisturbed.stats["best_epoch"] > 1
    assert undisturbed.stats["epochs"] == EPOCHS
