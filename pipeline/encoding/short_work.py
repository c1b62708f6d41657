"""A few molecules, encoded in this process: it is through before encoder actors would have started.

Conformers that must be made are still made by tasks on all cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from pipeline.encoders import encoder_class
from pipeline.encoding.graph import fitted_to, rows_to_encode
from pipeline.encoding.lookup import Pending
from pipeline.encoding.plan import EncoderPool, EncodingPlan
from pipeline.encoding.steps import EncodeBatch, read_conformers
from pipeline.runtime.cluster import is_one_node

# An actor imports torch and more, one on each core: 8 to 12 s on 2 cores of an Intel Xeon.
ACTORS_START = 8.0


def most_here(plans: Iterable[EncodingPlan], pool: EncoderPool, more_seconds: float = 0.0) -> float:
    """Molecules that one core of this process is through with before actors would have started.

    None where actors are asked for by --encoder_workers, or where torch's encoders, or what else
    is to be done, would find other nodes or a GPU.

    Parameters
    ----------
    more_seconds : of a core, for what else is done with a molecule.
    """
    seconds = more_seconds
    actors_are_better = pool.device != "cpu" or not is_one_node()
    for plan in plans:
        settings = plan.settings
        encoder = encoder_class(settings.foundation_model)
        if encoder.uses_torch or more_seconds:
            unknown = settings.finetuned is not None and plan.weights is None
            if unknown or settings.encoder_workers or actors_are_better:
                return 0
        seconds += encoder.core_seconds(plan.weights)
    return ACTORS_START / seconds


def encoded_here(
    pending: Pending, plan: EncodingPlan, pool: EncoderPool, run: str
) -> Iterator[pa.Table]:
    """What became of each molecule (OUTCOMES), batch by batch, as from `encoding_graph`."""
    pool = fitted_to(pending, plan, pool._replace(actors=1))
    with threads_as_they_were([plan]):
        encode_batch = EncodeBatch(plan, run, pool)
        for rows in _rows(pending, plan, pool, run):
            yield encode_batch(rows)


def _rows(pending: Pending, plan: EncodingPlan, pool: EncoderPool, run: str) -> Iterator[pa.Table]:
    """Rows of TO_ENCODE, or of TO_EMBED for an encoder without conformers."""
    if plan.tables.conformers is not None and pending.unmade.num_rows:
        step = {"plan": plan, "run": run}
        made = rows_to_encode(pending, step, pool)
        yield from made.iter_batches(batch_size=pool.batch_size, batch_format="pyarrow")
        return
    here = pending.unmade if plan.tables.conformers is None else pending.stored
    for number in range(math.ceil(here.num_rows / pool.batch_size)):
        rows = here.slice(number * pool.batch_size, pool.batch_size)
        yield rows if here is pending.unmade else read_conformers(rows, plan.tables)


@contextmanager
def threads_as_they_were(plans: Iterable[EncodingPlan]) -> Iterator[None]:
    """An encoder on a CPU takes one thread; what comes after it shall have those of before."""
    if not any(encoder_class(plan.settings.foundation_model).uses_torch for plan in plans):
        yield
        return
    import torch  # only here: RDKit's encoders do without it

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
