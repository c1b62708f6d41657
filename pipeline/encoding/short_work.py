"""A few molecules, encoded in this process: it is through before encoder actors would have started.

Conformers that must be made are still made by tasks on all cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import pyarrow as pa

from pipeline.encoders import encoder_class
from pipeline.encoding.graph import fitted_to, longest_first
from pipeline.encoding.lookup import Pending
from pipeline.encoding.plan import EncoderPool, EncodingPlan
from pipeline.encoding.steps import EncodeBatch, make_conformers, read_conformers
from pipeline.runtime.nodes.cluster import is_one_node
from pipeline.runtime.nodes.tasks import by_tasks

# An actor imports torch and more, one on each core: 8 to 12 s on 2 cores of an Intel Xeon.
ACTORS_START = 8.0


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
    """Whether this process is through with encoding before actors would have started.

    RDKit's encoders work here wherever the driver is: they have nothing to gain from a GPU.
    """
    may = may_work_here([plan], pool) or not uses_torch(plan)
    return may and pending.rows * core_seconds(plan) <= ACTORS_START


def encoded_here(
    pending: Pending, plan: EncodingPlan, pool: EncoderPool, run: str
) -> Iterator[pa.Table]:
    """What became of each molecule (OUTCOMES), batch by batch, as from `encoding_graph`."""
    pool = fitted_to(pending, plan, pool._replace(actors=1))
    with threads_as_they_were() if uses_torch(plan) else nullcontext():
        encode_batch = EncodeBatch(plan, run, pool)
        for rows in _rows(pending, plan, pool.batch_size, run):
            yield encode_batch(rows)


def _rows(pending: Pending, plan: EncodingPlan, size: int, run: str) -> Iterator[pa.Table]:
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


@contextmanager
def threads_as_they_were() -> Iterator[None]:
    """An encoder on a CPU takes one thread; what comes after it shall have those of before."""
    import torch  # only here: RDKit's encoders do without it

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
