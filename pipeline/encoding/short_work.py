"""Encoding in this process, where it is through before encoder actors would be.

On a machine of two cores this process encodes in a thread a core, which spares each core the start
of an actor; conformers that must be made are still made by tasks on all cores.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import nullcontext
from queue import SimpleQueue

import pyarrow as pa

from pipeline.encoders import encoder_class
from pipeline.encoding.graph import fitted_to, longest_first
from pipeline.encoding.lookup import Pending
from pipeline.encoding.plan import CPU_BATCH, EncoderPool, EncodingPlan
from pipeline.encoding.steps import EncodeBatch, make_conformers, read_conformers
from pipeline.runtime.nodes.cluster import cores_now, is_one_node
from pipeline.runtime.nodes.machine import usable_cores
from pipeline.runtime.nodes.tasks import by_tasks
from pipeline.runtime.threads import in_threads, one_core_a_thread, torch_on_one_core

# An actor imports torch and more, one on each core: 8 to 12 s on 2 cores of an Intel Xeon.
ACTORS_START = 8.0
# Threads take turns in what Python does, so they are for as few cores as were measured
# (bench/encode.md). A longer run shall survive the death of an encoder, as actors let it.
FEW_CORES, THREAD_SECONDS = 2, 120.0


def may_work_here(plans: Iterable[EncodingPlan], pool: EncoderPool) -> bool:
    """Whether the driver may do what actors are for: on a cluster of one node, on its CPU.

    Not where --encoder_workers asks for actors.
    """
    return (
        pool.device == "cpu"
        and not any(plan.settings.encoder_workers for plan in plans)
        and is_one_node()
    )


def core_seconds(plan: EncodingPlan) -> float:
    """Roughly how long one core works on an ordinary molecule; see `Encoder.core_seconds`."""
    settings = plan.settings
    if settings.finetuned is not None and plan.weights is None:  # the checkpoint's are meant
        return math.inf
    return encoder_class(settings.foundation_model).core_seconds(plan.weights)


def is_short(pending: Pending, plan: EncodingPlan, pool: EncoderPool) -> bool:
    """Whether this process is through with encoding before actors would be.

    RDKit's encoders work here wherever the driver is: they have nothing to gain from a GPU.
    """
    if uses_torch(plan) and not may_work_here([plan], pool):
        return False
    threads = threads_here(plan)
    most = ACTORS_START if threads == 1 else THREAD_SECONDS * threads
    return pending.rows * core_seconds(plan) <= most


def threads_here(plan: EncodingPlan) -> int:
    """Threads that this process encodes in, which share one encoder.

    One for encoders by RDKit, which Python lets work one at a time; where much more than features
    is kept of each molecule, which several would hold at once; and on many cores.
    """
    cores = min(usable_cores(), cores_now())
    more = plan.tables.trunk is not None or plan.tables.residues is not None
    return 1 if more or not uses_torch(plan) or cores > FEW_CORES else cores


def encoded_here(
    pending: Pending, plan: EncodingPlan, pool: EncoderPool, run: str
) -> Iterator[pa.Table]:
    """What became of each molecule (OUTCOMES), batch by batch, as from `encoding_graph`."""
    threads, torch = threads_here(plan), uses_torch(plan)
    pool = fitted_to(pending, plan, pool._replace(actors=threads))
    with one_core_a_thread() if torch else nullcontext():
        free: SimpleQueue[EncodeBatch] = SimpleQueue()  # each tells its own times
        free.put(first := EncodeBatch(plan, run, pool))
        for _ in range(threads - 1):
            free.put(EncodeBatch(plan, run, pool, first.encoder))

        def encode(rows: pa.Table) -> pa.Table:
            encode_batch = free.get()
            try:
                return encode_batch(rows)
            finally:
                free.put(encode_batch)

        size = min(pool.batch_size, CPU_BATCH)  # an interrupt waits for the batches that run
        rows = _rows(pending, plan, size, run)
        yield from in_threads(encode, rows, threads, start=torch_on_one_core if torch else None)


def _rows(pending: Pending, plan: EncodingPlan, size: int, run: str) -> Generator[pa.Table]:
    """Rows of TO_ENCODE, or of TO_EMBED for an encoder without conformers."""
    if plan.tables.conformers is None:
        yield from _slices(pending.unmade, size)
        return
    if pending.unmade.num_rows:
        work = longest_first(pending.unmade, plan.tables)
        for made in by_tasks(make_conformers, work, plan=plan, run=run):
            yield from _slices(made, size)
    for places in _slices(pending.stored, size):
        yield read_conformers(places, plan.tables)


def _slices(table: pa.Table, size: int) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, size):
        yield table.slice(start, size)


def uses_torch(plan: EncodingPlan) -> bool:
    """Whether the encoder does."""
    return encoder_class(plan.settings.foundation_model).uses_torch
