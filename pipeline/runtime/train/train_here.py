"""A training whose one worker is this process: Ray Train's local mode, made fit for a driver.

Ray Train's controller and worker group import torch, each in a process of its own: seconds for a
fit that may take a fraction of one. Its local mode does without, but keeps no checkpoint and leaves
torch as the training set it. What is missing is here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import fsspec
import ray.data
import ray.train
import torch
from ray.train.torch import TorchTrainer

from pipeline.runtime.files import remove, write_atomically
from pipeline.runtime.nodes.cluster import is_one_node

STATE_FILE = "state.pt"
KEPT = "here"  # the folder of the last state, beside Ray Train's checkpoints
RAY_TRAINS_NOTES = "checkpoint_manager_snapshot.json"

Loop = Callable[[dict[str, Any]], Any]

_folder: str | None = None  # where this process's training keeps its state, while one runs


def may_run_here(workers: int, use_gpu: bool, light: bool) -> bool:
    """Whether a training can do without processes of its own.

    The cluster must be this node, so that no core lies idle elsewhere.

    Parameters
    ----------
    light : it needs little memory, and batches of few shapes.
    """
    return workers == 1 and not use_gpu and light and is_one_node()


def trainer_here(
    loop: Loop, config: dict[str, Any], run: str, datasets: dict[str, ray.data.Dataset]
) -> TorchTrainer:
    """A TorchTrainer whose only worker is this process.

    Parameters
    ----------
    run : folder or URI of the run's state.
    datasets : streamed as their own contexts say.
    """
    storage, _, name = run.rpartition("/")
    return TorchTrainer(
        partial(_loop_here, loop, run),
        train_loop_config=config,
        datasets=datasets,
        scaling_config=ray.train.ScalingConfig(num_workers=0),
        run_config=ray.train.RunConfig(name=name, storage_path=storage),
    )


def _loop_here(loop: Loop, run: str, config: dict[str, Any]) -> Any:
    """The loop, from the last kept state on; torch is afterwards as it was before."""
    global _folder
    _take_over(run)
    kept = kept_checkpoint(run)
    if kept is not None:
        ray.train.report({}, checkpoint=kept)  # local mode gives it back by get_checkpoint()
    before, _folder = _folder, f"{run}/{KEPT}"
    try:
        with _torch_as_it_was():
            return loop(config)
    finally:
        _folder = before


def _take_over(run: str) -> None:
    """Make Ray Train's last checkpoint the kept state, if it has one: then it is the later.

    A run may be stopped in its driver and go on in workers, and the other way round. Whoever
    goes on takes the state over first, so that Ray Train's notes are there if it was the last.
    """
    fs, notes = fsspec.url_to_fs(f"{run}/{RAY_TRAINS_NOTES}")
    if not fs.exists(notes):
        return
    latest = json.loads(fs.cat_file(notes))["latest_checkpoint_result"]
    if latest is not None:
        folder = f"{run}/{latest['checkpoint_dir_name']}"
        write_atomically(f"{run}/{KEPT}/{STATE_FILE}", _read(f"{folder}/{STATE_FILE}"))
    remove(f"{run}/{RAY_TRAINS_NOTES}")


def _read(uri: str) -> bytes:
    fs, path = fsspec.url_to_fs(uri)
    return fs.cat_file(path)


def is_here() -> bool:
    """Whether this process is a driver that trains by itself."""
    return _folder is not None


def keep(state: bytes) -> ray.train.Checkpoint:
    """Replace the last state of the training that runs here."""
    write_atomically(f"{_folder}/{STATE_FILE}", state)
    return ray.train.Checkpoint(_folder)


def kept_checkpoint(run: str) -> ray.train.Checkpoint | None:
    """The last state that a training in its driver has kept, if there is one.

    Parameters
    ----------
    run : folder or URI of the run's state.
    """
    return ray.train.Checkpoint(f"{run}/{KEPT}") if _exists(f"{run}/{KEPT}/{STATE_FILE}") else None


def _exists(uri: str) -> bool:
    fs, path = fsspec.url_to_fs(uri)
    return fs.exists(path)


@contextmanager
def _torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    deterministic = torch.get_deterministic_debug_mode()
    try:
        with torch.random.fork_rng(devices=()):
            yield
    finally:
        torch.set_deterministic_debug_mode(deterministic)
        torch.set_num_threads(threads)
