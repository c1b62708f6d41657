"""What pretrainings on molecules and on sequences share: held-out losses, workers, output files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.encoders.unimol.precision import default_precision
from pipeline.pretraining.curves import Panels, pretraining_figure, progress_line
from pipeline.pretraining.settings import PretrainSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute, json_bytes, remove, write_atomically
from pipeline.runtime.nodes.cluster import cluster_cores
from pipeline.runtime.progress_curves import watched
from pipeline.runtime.text import records_csv
from pipeline.runtime.train.ray_train import (
    fit,
    prepare_device,
    rank,
    read_state,
    run_name,
    threads_of,
    torch_trainer,
)
from pipeline.runtime.train.training_in_steps import TrainingInSteps

CURVES, FIGURE, STATS = "pretraining_curves.csv", "pretraining_curves.png", "pretraining_stats.json"
# Settings that say where and how fast, not what: a run killed under one value of these may be
# resumed under another.
NOT_IDENTITY = (
    "output_dir", "cache_root", "num_workers", "device", "checkpoint_every", "weights_precision",
    "force_recompute_cache", "retry_rejected", "conformer_seconds", "conformer_gb", "dataset",
    "data_file", "exclude_file", "tokens_at_once",
)  # fmt: skip


class Pretraining(TrainingInSteps):
    """A training in steps, told by losses of what it does not see.

    Attributes
    ----------
    steps_an_epoch : of the optimiser.
    """

    steps_an_epoch: int

    @abstractmethod
    def held_out(self) -> dict[str, float]:
        """Losses of what is held out, under masks that never change, as `heldout_NAME`."""

    def beforehand(self) -> list[dict[str, float]]:
        """The held-out losses of the model that pretraining starts from."""
        return [{"step": 0, "epoch": 0.0, **self.held_out()}]

    def line(self, means: dict[str, float]) -> dict[str, float]:
        """Mean losses as `train_NAME`, and the held-out ones."""
        return {
            "step": self.step,
            "epoch": self.step / self.steps_an_epoch,
            **{f"train_{name}": value for name, value in means.items()},
            **self.held_out(),
            "seconds": self.seconds,
        }


def decided(settings: PretrainSettings, device: str) -> PretrainSettings:
    """With the precision that the device does best."""
    if settings.precision != "auto":
        return settings
    best = default_precision(device)
    # fp16 would need its gradients scaled.
    return replace(settings, precision="fp32" if best == "fp16" else best)


def seed_dropout(seed: int, step: int) -> None:
    """Make a step's dropout depend on the seed, the step and the worker alone."""
    torch.manual_seed(int(np.random.default_rng([seed, step, rank()]).integers(2**63)))


def check_any_left(rows: int, what: str, settings: PretrainSettings) -> None:
    """InputError if no row is left to train on.

    Parameters
    ----------
    what : the rows are, for the message.
    """
    if rows <= settings.holdout_size:
        raise InputError(
            f"{settings.data_file}: {rows} {what}, and --holdout_size {settings.holdout_size} "
            "leaves none to train on"
        )


class Trained(NamedTuple):
    """What workers have made.

    Attributes
    ----------
    tensors : of the model, on the CPU.
    outcome : what the state's `train` returned.
    folder : of the run's own state, which is there until all is written.
    """

    tensors: dict[str, Tensor]
    outcome: dict[str, Any]
    folder: str


def train_on_workers(
    state: type[Pretraining], job: Any, settings: PretrainSettings, device: str, mend: str,
    *identity: Any,
) -> Trained:  # fmt: skip
    """Pretrain by Ray Train; a run that was killed continues from its last checkpoint.

    Parameters
    ----------
    state : made from the job and a device on each worker.
    settings : with the precision decided.
    mend : what a user can do about too little memory.
    identity : JSON-ready; what else than the settings decides the outcome.
    """
    curves = f"{absolute(settings.output_dir)}/{CURVES}"
    storage = f"{absolute(settings.output_dir)}/.ray_train"
    name = run_name(settings, NOT_IDENTITY, *identity)
    config = {
        "state": state, "job": job, "threads": threads_of(settings.num_workers), "curves": curves,
    }  # fmt: skip
    trainer = torch_trainer(
        pretraining_loop, config, workers=settings.num_workers, use_gpu=device == "cuda",
        cores=cluster_cores(), storage=storage, name=name,
    )  # fmt: skip
    with watched(curves, progress_line, told=1):  # the first line is before any step
        result = fit(trainer, mend)
    return Trained(read_state(result.checkpoint)["model"], result.return_value, f"{storage}/{name}")


def pretraining_loop(config: dict[str, Any]) -> dict[str, Any]:
    """What each worker runs."""
    state = config["state"](config["job"], prepare_device(config["threads"]))
    return state.train(config["curves"])


def write_outcome(
    trained: Trained, stats: Mapping[str, Any], settings: PretrainSettings, panels: Panels
) -> dict[str, Any]:
    """Write curves, figure and figures; then forget the run's own state.

    Parameters
    ----------
    stats : what else pretraining_stats.json has, first.

    Returns
    -------
    dict
        The content of pretraining_stats.json.
    """
    outcome, folder = dict(trained.outcome), settings.output_dir
    history = outcome.pop("history")
    write_atomically(f"{folder}/{CURVES}", records_csv(history))
    pretraining_figure(history, f"{folder}/{FIGURE}", panels)
    content = {
        **stats,
        **outcome,
        "before": _held_out_of(history[0]),
        "after": _held_out_of(history[-1]),
        "settings": asdict(settings),
    }
    write_atomically(f"{folder}/{STATS}", json_bytes(content))
    remove(trained.folder)  # a new start shall train again
    return content


def _held_out_of(line: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name.startswith("heldout_")}
