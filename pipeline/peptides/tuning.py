"""How many residues a training batch should have on this machine, measured.

Sizes are tried from small to large, by real steps on the user's own peptides, of each length in
turn. Another batch trains another model, so nothing is chosen silently: what is found is for
`--batch_residues`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import ray
import torch

from pipeline.encoding.cost.tuning import best_of
from pipeline.generation.diffusion.state import precision_for_training
from pipeline.peptides.diffusion.batches import Batch, Batches
from pipeline.peptides.diffusion.loop import PeptideJob, PeptideState
from pipeline.peptides.run import prepare
from pipeline.peptides.settings import PeptideGeneratorSettings, TunePeptidesSettings
from pipeline.runtime import telemetry
from pipeline.runtime.errors import OUT_OF_MEMORY
from pipeline.runtime.train.ray_train import threads_of

log = logging.getLogger(__name__)

SIZES = {"cpu": [2**n for n in range(9, 15)], "cuda": [2**n for n in range(12, 20)]}


@dataclass(frozen=True)
class BatchTrial:
    """One size that was tried.

    Attributes
    ----------
    batch_residues : padded residues that a batch had at most.
    memory_gb : peak, GiB; of the GPU's memory, or resident on a CPU.
    rate : residues a second, without padding, with accumulated batches counted.
    waiting_share : of the steps' time, that the device waited for data.
    """

    batch_residues: int
    memory_gb: float
    rate: float
    waiting_share: float


def tune_peptides(settings: TunePeptidesSettings) -> tuple[list[BatchTrial], BatchTrial]:
    """Try sizes on one worker of this cluster.

    Returns
    -------
    All trials, and the smallest that is about as fast as the fastest.

    Raises
    ------
    InputError
        As `run_peptides`; or if not even the smallest size fits the memory.
    """
    prepared = prepare(settings)
    device = prepared.plan.device
    precision = precision_for_training(prepared.plan.settings.precision, device)
    on_gpu = device == "cuda"
    remote = ray.remote(num_cpus=int(not on_gpu), num_gpus=int(on_gpu), max_calls=1)(trials_of)
    peptides = ray.put((prepared.train, prepared.held_out))
    job = PeptideJob(
        _own(settings), peptides, {}, len(prepared.source.names), precision, threads_of(1), ""
    )
    trials = ray.get(remote.remote(job, device, settings.seconds, settings.memory_gb))
    for line in not_tried(SIZES[device], [trial.batch_residues for trial in trials]):
        log.info(line)
    return trials, best_of(trials, settings.memory_gb, lambda trial: trial.batch_residues)


def not_tried(sizes: Sequence[int], tried: Sequence[int]) -> list[str]:
    """Which sizes are missing among the trials, and why."""
    small = [size for size in sizes if tried and size < tried[0]]
    large = [size for size in sizes if not tried or size > tried[-1]]
    reasons = {"do not hold the longest peptide": small, "take more memory than there is": large}
    return [
        f"not tried: batches of {', '.join(f'{size:,}' for size in missing)} residues, which {why}"
        for why, missing in reasons.items()
        if missing
    ]


def trials_of(
    job: PeptideJob, device: str, seconds: float, memory_gb: float | None
) -> list[BatchTrial]:
    """Trials of ascending sizes that hold the longest peptide, up to the first that takes too much
    memory."""
    if device == "cpu":
        torch.set_num_threads(job.threads)
    trials = []
    try:
        for trial in _sweep(job, torch.device(device), seconds):
            if memory_gb is not None and trial.memory_gb > memory_gb:
                break
            trials.append(trial)
    except (RuntimeError, MemoryError) as error:
        if not any(words in f"{type(error).__name__}: {error}" for words in OUT_OF_MEMORY):
            raise
    return trials


def _sweep(job: PeptideJob, device: torch.device, seconds: float) -> Iterator[BatchTrial]:
    for size in SIZES[device.type]:
        settings = replace(job.settings, batch_residues=size, steps=1 << 30)
        state = PeptideState(replace(job, settings=settings), device)
        buckets = len(state.make.lengths)
        if size < state.make.lengths.max():
            state.close()
            continue  # it does not hold the longest peptide
        state.make = partial(_of_each_length, state.make)
        telemetry.reset_peak_memory()
        _steps(state, buckets)  # the first of each length sets things up
        state.load.take()
        state.seen, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            _steps(state, buckets)
        taken = time.perf_counter() - started
        on_gpu = device.type == "cuda"
        peak = telemetry.peak_gpu_memory_gb if on_gpu else telemetry.peak_resident_memory_gb
        yield BatchTrial(size, peak(), state.seen / taken, state.load.take()["waiting_share"])
        state.close()
        del state  # else the next is measured beside it


def _of_each_length(make: Batches, number: int) -> Batch:
    rng = np.random.default_rng([make.settings.seed, number])
    return make.of_bucket(number % len(make.lengths), rng)


def _steps(state: PeptideState, count: int) -> None:
    for _ in range(count):
        float(state.one_step()["loss"])  # waits for the device
        state.step += 1


def _own(settings: TunePeptidesSettings) -> PeptideGeneratorSettings:
    own = (f.name for f in fields(PeptideGeneratorSettings))
    return PeptideGeneratorSettings(**{name: getattr(settings, name) for name in own})
