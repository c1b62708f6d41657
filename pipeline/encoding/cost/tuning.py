"""The batch sizes at which this machine's device encodes fastest, measured and remembered.

`tune` tries sizes on molecules like the user's and keeps the best beside the store's tables;
encoding finds it there (`tuned`) under the encoder, the weights and the precision.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import ray

from pipeline.encoding.plan import EncoderPool, EncodingPlan, check_inputs, encoder_pool, open_run
from pipeline.encoding.settings import TuneSettings
from pipeline.encoding.steps import pooled_encoder
from pipeline.molecules.identity import sampled_atom_counts
from pipeline.runtime import telemetry
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_record, write_atomically
from pipeline.runtime.nodes.cluster import device_name
from pipeline.store.keyed_table import KeyedTable

if TYPE_CHECKING:
    from pipeline.encoders.unimol.batching import Budget
    from pipeline.encoders.unimol.encoder import UniMolEncoder

log = logging.getLogger(__name__)

T = TypeVar("T")

# Padded tokens of a batch, and molecules that the batches are cut from, smallest first.
TOKENS = {"cpu": [2**n for n in range(7, 13)], "cuda": [2**n for n in range(11, 20)]}
WINDOWS = {"cpu": (64, 128, 256), "cuda": (1024, 4096, 16384)}
PAIRS_PER_TOKEN = 64  # room for batches of molecules up to this long
CLOSE_TO_BEST = 0.98  # among sizes this near to the best rate, the smallest is taken
FILE = "_best.json"
TUNED = "unimol"  # the encoder whose sizes are tried


@dataclass(frozen=True)
class Trial:
    """One size that was tried.

    Attributes
    ----------
    encoding_batch_size : molecules that batches were cut from.
    tokens : padded tokens that a batch held at most.
    padding_share : share of padding in the tokens computed.
    memory_gb : peak, GiB; of the GPU's memory, or resident on a CPU.
    rate : molecules a second.
    """

    encoding_batch_size: int
    tokens: int
    padding_share: float
    memory_gb: float
    rate: float


def budget_of(tokens: int, molecules: int) -> Budget:
    """The budget that a size stands for."""
    from pipeline.encoders.unimol.batching import Budget  # imports torch

    return Budget(molecules, tokens, PAIRS_PER_TOKEN * tokens, tokens // 2)


def tune(settings: TuneSettings) -> tuple[list[Trial], Trial]:
    """Try sizes on one encoder of this cluster; keep the best where encoding finds it.

    The trials run on molecules of the sizes that the data file has.

    Returns
    -------
    All trials, and the one chosen.

    Raises
    ------
    InputError
        If the data file is wrong or has no molecules, the encoder has no sizes to tune, the
        cluster's GPUs are of several kinds, or not even the smallest size fits the memory.
    """
    check_inputs(settings)
    if settings.foundation_model != TUNED:
        raise InputError(
            f"--foundation_model {settings.foundation_model}: sizes are tried of {TUNED} alone; of "
            "others there is nothing to tune"
        )
    plan, source = open_run(settings)
    pool = encoder_pool(settings, plan.device)
    place = _place(plan, pool)
    if place is None:
        raise InputError("the cluster's GPUs are of several kinds; tune on a cluster of one kind")
    atoms = sampled_atom_counts(
        source.molecules["smiles"], max(WINDOWS[pool.device]), plan.tables.identity["hydrogens"]
    )
    if len(atoms) == 0:
        raise InputError(f"{settings.data_file}: no molecule to take sizes from")
    sizes = [(w, tokens) for tokens in TOKENS[pool.device] for w in WINDOWS[pool.device]]
    remote = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus, max_calls=1)(_trials)
    trials = ray.get(remote.remote(plan, pool, atoms, sizes))
    best = best_of(trials, settings.memory_gb, lambda t: (t.tokens, t.encoding_batch_size))
    write_atomically(place, json.dumps(asdict(best)).encode())
    return trials, best


def best_of(trials: Sequence[T], memory_gb: float | None, size: Callable[[T], Any]) -> T:
    """The smallest trial that is about as fast as the fastest.

    Parameters
    ----------
    trials : each with a `rate`.
    memory_gb : what they might take, GiB; None: all there is.
    size : by which the smallest is found.

    Raises
    ------
    InputError
        If there are none: not even the smallest size fits the memory.
    """
    if not trials:
        limit = "all there is" if memory_gb is None else f"{memory_gb:g} GiB"
        raise InputError(f"--memory_gb ({limit}): the smallest size takes more; allow more")
    enough = CLOSE_TO_BEST * max(trial.rate for trial in trials)
    return min((trial for trial in trials if trial.rate >= enough), key=size)


def tuned(plan: EncodingPlan, pool: EncoderPool) -> Trial | None:
    """The size chosen for such encoders; None if none was tuned."""
    place = _place(plan, pool)
    return None if place is None else read_record(place, Trial, "jobs.tune", "run it again")


def _place(plan: EncodingPlan, pool: EncoderPool) -> str | None:
    """The file for this encoder on this kind of device, or on this share of it."""
    identity, device = plan.tables.identity, device_name(pool.device)
    if device is None:
        return None
    kept = {name: identity[name] for name in ("encoder", "weights_sha256", "precision")
            if name in identity}  # fmt: skip
    decides = {**kept, "device": device, "share": pool.gpus}
    return f"{KeyedTable(plan.settings.cache_root, 'tuning', decides).uri}/{FILE}"


def _conformers(atoms: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random structures with these numbers of atoms, repeated: speed depends on sizes alone."""
    random = np.random.default_rng(0)
    return [
        (np.full(n, 6, np.uint8), random.normal(0, 3, (n, 3)).astype(np.float32))
        for n in random.choice(atoms, count)
    ]


def _trials(
    plan: EncodingPlan[TuneSettings],
    pool: EncoderPool,
    atoms: np.ndarray,
    sizes: list[tuple[int, int]],
) -> list[Trial]:
    """On the worker: the trials that fit the memory asked for."""
    telemetry.configure_logging()
    encoder = pooled_encoder(plan, pool)
    trials = []
    try:
        for trial in _sweep(encoder, plan.settings, atoms, sizes):
            trials.append(trial)
    except MemoryError:
        pass  # larger sizes cannot be had
    return trials


def _sweep(
    encoder: UniMolEncoder, settings: TuneSettings, atoms: np.ndarray, sizes: list[tuple[int, int]]
) -> Iterator[Trial]:
    structures = _conformers(atoms, max(window for window, _ in sizes))
    prepared = [encoder.prepare({"atoms": a, "coords": c}) for a, c in structures]
    encoder.encode_prepared(prepared[: sizes[0][0]])  # the first run sets things up
    for window, tokens in sizes:
        encoder.budget = wanted = budget_of(tokens, window)
        telemetry.reset_peak_memory()
        encoder.take_token_counts()
        done, started = 0, time.monotonic()
        while time.monotonic() - started < settings.seconds:
            start = done % len(prepared)
            part = prepared[start : start + window]
            encoder.encode_prepared(part)
            done += len(part)
        seconds = time.monotonic() - started
        memory = (
            telemetry.peak_gpu_memory_gb()
            if encoder.device.type == "cuda"
            else telemetry.peak_resident_memory_gb()
        )
        too_much = settings.memory_gb is not None and memory > settings.memory_gb
        if too_much or encoder.budget != wanted:  # it halves where memory ran out
            return
        computed, padding = encoder.take_token_counts()
        yield Trial(window, tokens, padding / computed, memory, done / seconds)


def tuned_pool(plan: EncodingPlan) -> EncoderPool:
    """The actors to start, with the batch sizes that jobs.tune found, if it ran."""
    pool = encoder_pool(plan.settings, plan.device)
    found = tuned(plan, pool)
    if found is None:
        return pool
    size = plan.settings.encoding_batch_size or found.encoding_batch_size
    log.info("batches as jobs.tune chose: %s molecules, %s tokens", size, found.tokens)
    return pool._replace(batch_size=size, budget=budget_of(found.tokens, size))
