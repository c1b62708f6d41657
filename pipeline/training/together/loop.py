"""What the one worker runs that trains many heads: stacks of them, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from pipeline.runtime import dashboard_metrics as metrics
from pipeline.runtime import telemetry
from pipeline.runtime.train.ray_train import last_checkpoint, prepare_device, read_state, report
from pipeline.store.keyed_table import Index
from pipeline.training.settings import TrainSettings
from pipeline.training.together.head_stack import HeadStack, Molecules
from pipeline.training.worker.worker_setup import TrainingJob, fits_in_memory

# Most that the values of one batch may fill in a stack. Larger stacks are not faster: products of
# a few heads already keep a core busy.
STACK_BYTES = 64 * 2**20
# Heads that fill less than this, all together, are one stack; more are shared among threads.
ONE_STACK_BYTES = 4 * 2**20


def heads_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Train all heads; what came of each, as `training_loop` tells it, and `failure`.

    Parameters
    ----------
    config : `job`, with the settings of the first head, and `heads`, the settings of all.

    Returns
    -------
    dict
        `resident`: whether the features fit into memory; if not, nothing was trained. `outcomes`,
        in the heads' order. Seconds are a head's share of those of its stack.
    """
    job: TrainingJob = config["job"]
    heads: Sequence[TrainSettings] = config["heads"]
    device = prepare_device(job.threads)
    index = job.features.index()
    width = job.feature_width(index)
    # Once begun they go on, though other programs may have taken memory since.
    if last_checkpoint() is None and not fits_in_memory(job, width, device):
        return {"resident": False, "outcomes": []}
    telemetry.reset_peak_memory()
    molecules = _molecules(job, index)
    stacks = _stacks(heads, molecules)
    resumed_after = _resume(stacks)
    every = job.settings.checkpoint_every
    with _workers(min(len(stacks), torch.get_num_threads())) as run:
        while not all(stack.finished for stack in stacks):
            run(HeadStack.run_epoch, stacks)
            done = max(record.epoch for stack in stacks for record in stack.records)
            if done % every == 0 or all(stack.finished for stack in stacks):
                _report(stacks)
    return {"resident": True, "outcomes": _outcomes(stacks, width, resumed_after)}


def _molecules(job: TrainingJob, index: Index) -> Molecules:
    """All rows in memory, standardised."""

    def read(role: str) -> torch.Tensor:
        rows = torch.from_numpy(job.features.read_features(job.keys[role], index))
        if job.standard is None:
            return rows
        mean, scale = map(torch.from_numpy, job.standard)
        return (rows - mean) / scale

    roles = ("id_train", "ood_train", "id_val", "ood_val")
    domains = job.domains and tuple(torch.from_numpy(job.domains[role]) for role in roles[:2])
    return Molecules(*map(read, roles), domains)


def _stacks(heads: Sequence[TrainSettings], molecules: Molecules) -> list[HeadStack]:
    """The heads in stacks, as large as a batch's values allow."""
    first = heads[0]
    batch = sum(min(first.batch_size, size) for size in molecules.sizes)
    hidden = first.hidden_dim + first.hidden_dim // 2
    values = batch * (molecules.id_train.shape[1] + 4 * hidden)
    size = max(1, STACK_BYTES // (4 * values))
    if len(heads) * 4 * values > ONE_STACK_BYTES:
        size = min(size, math.ceil(len(heads) / torch.get_num_threads()))
    batches = math.ceil(max(molecules.sizes) / first.batch_size)
    steps = math.ceil(batches / first.gradient_accumulation_steps)
    return [HeadStack(heads[i : i + size], molecules, steps) for i in range(0, len(heads), size)]


@contextmanager
def _workers(threads: int) -> Iterator[Any]:
    """A map over stacks; of several at a time each has one thread, and the same numbers."""
    if threads == 1:
        yield lambda work, stacks: [work(stack) for stack in stacks]
        return
    start = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ThreadPoolExecutor(threads, **start) as pool:
        yield lambda work, stacks: list(pool.map(work, stacks))


def _resume(stacks: Sequence[HeadStack]) -> int:
    """Go on from the latest checkpoint, if there is one; the epochs that were done."""
    checkpoint = last_checkpoint()
    if checkpoint is None:
        return 0
    states = read_state(checkpoint)["heads"]
    place = 0
    for stack in stacks:
        stack.resume(states[place : place + len(stack.records)])
        place += len(stack.records)
    return max(state["progress"]["epoch"] for state in states)


def _report(stacks: Sequence[HeadStack]) -> None:
    """Hand Ray Train a checkpoint of all heads, and dashboards the means of the last epochs."""
    last = [record.history[-1] for stack in stacks for record in stack.records if record.history]
    means = {
        name: sum(epoch[name] for epoch in last) / len(last)
        for name in ("loss", "val_auroc") if last
    }  # fmt: skip
    if means:
        metrics.show("training_loss", means["loss"])
        metrics.show("validation_auroc", means["val_auroc"])
    report(means, lambda: {"heads": [state for stack in stacks for state in stack.state()]})


def _outcomes(stacks: Sequence[HeadStack], width: int, resumed_after: int) -> list[dict[str, Any]]:
    peaks = {
        f"peak_{kind}_memory_{phase}_gb": peak()
        for kind, peak in (
            ("gpu", telemetry.peak_gpu_memory_gb),
            ("resident", telemetry.peak_resident_memory_gb),
        )
        for phase in ("train", "eval")
    }
    return [
        {
            "history": record.history,
            "failure": record.failure,
            "resumed_after_epoch": resumed_after,
            "best_epoch": record.best_epoch,
            "best_val_auroc": record.best_auroc,
            "train_time_seconds": record.train_seconds,
            "eval_time_seconds": record.eval_seconds,
            **peaks,
            "resident": True,
            "feature_width": width,
            "trained_parameters": sum(tensor.numel() for tensor in record.best.values()),
        }
        for stack in stacks
        for record in stack.records
    ]
