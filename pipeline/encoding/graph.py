"""The flow from molecules to features, as a list of steps.

Rows that a step rejects travel on with a reason, so that what comes out is what went in; each
step keeps its results in the store as soon as it has them, so a run that is killed continues
from there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from pipeline.conformers.conformer import NVMOLKIT
from pipeline.encoders import encoder_class
from pipeline.encoding.cost.expected_work import expected_seconds
from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.lookup import Pending
from pipeline.encoding.plan import GPU_BATCH, EncoderPool, EncodingPlan
from pipeline.encoding.steps import (
    EncodeBatch,
    MakeConformersOnGpu,
    make_conformers,
    make_graphs,
    read_conformers,
)
from pipeline.runtime.nodes.cluster import cluster_cores

# Molecules of which one shard holds the activations, or the residues' features, at most.
TRUNK_BATCH, RESIDUE_BATCH = 512, 128
# A task's expected core seconds, least and most, and molecules at most. Ray Data looks for ended
# tasks every 0.1 s: on two simulated nodes ray.timeline shows a core idle for 0.1 to 0.2 s between
# tasks. What a task has made it keeps at its end.
TASK_SECONDS, TASK_ROWS = (1.5, 30.0), 384
GRAPHS = 1024  # molecules of a task that makes nothing else: MiniMol's take 1.6 s
# Molecules that are expected to take so long are tasks of their own. Only this share of the largest
# comes first, the others stay mixed: who streams the store's shards needs batches of all sizes.
HARD_SECONDS, LARGEST = 5.0, 0.05
ON_A_CORE = {"batch_format": "pyarrow", "batch_size": None, "num_cpus": 1}


def encoding_graph(
    pending: Pending, plan: EncodingPlan, pool: EncoderPool, run: str
) -> ray.data.Dataset:
    """The flow from molecules to features; its rows (OUTCOMES) say what became of each key.

    Parameters
    ----------
    run : stamp of the shards that this run writes.
    """
    step = {"plan": plan, "run": run}
    pool = fitted_to(pending, plan, pool)
    return rows_to_encode(pending, step, pool).map_batches(
        EncodeBatch,
        fn_constructor_kwargs={**step, "pool": pool},
        batch_format="pyarrow",
        batch_size=pool.batch_size,
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        compute=pool.strategy(math.ceil(pending.rows / pool.batch_size)),
    )


def fitted_to(pending: Pending, plan: EncodingPlan, pool: EncoderPool) -> EncoderPool:
    """The pool with batches of a size that suits the work."""
    # Few molecules shall not leave an encoder without any.
    size = min(pool.batch_size, math.ceil(pending.rows / pool.actors))
    # What a batch leaves of these passes through the host's memory.
    if plan.tables.trunk is not None:
        size = min(size, TRUNK_BATCH)
    if plan.tables.residues is not None:
        size = min(size, RESIDUE_BATCH)
    return pool._replace(batch_size=size)


def rows_to_encode(pending: Pending, step: dict[str, Any], pool: EncoderPool) -> ray.data.Dataset:
    """Rows of TO_ENCODE: conformers made now, and those that the store has.

    Of an encoder without conformers rows of TO_EMBED, where its actors make what they read.
    """
    tables = step["plan"].tables
    by_tasks = graphs_by_tasks(step["plan"], pool)
    if by_tasks and tables.conformers is None:  # all that the tasks do
        rows = ray.data.from_arrow(in_slices(pending.unmade, GRAPHS))
    else:
        rows = ray.data.from_arrow(longest_first(pending.unmade, tables))
    if tables.conformers is not None:
        stored = ray.data.from_arrow(in_slices(pending.stored)).map_batches(
            read_conformers, fn_kwargs={"tables": tables}, **ON_A_CORE
        )
        rows = with_conformers(rows, step, pool).union(stored)
    if by_tasks:
        rows = rows.map_batches(make_graphs, fn_kwargs=step, **ON_A_CORE)
    return rows


def graphs_by_tasks(plan: EncodingPlan, pool: EncoderPool) -> bool:
    """Whether tasks on all cores make what encoders read, so that a GPU waits for no single core.

    On CPUs each core has an encoder, which makes its own.
    """
    return pool.device == "cuda" and encoder_class(plan.settings.foundation_model).graph is not None


def with_conformers(
    rows: ray.data.Dataset, step: dict[str, Any], pool: EncoderPool
) -> ray.data.Dataset:
    """Rows of TO_EMBED to rows of TO_ENCODE: tasks on all cores, or actors on GPUs.

    Parameters
    ----------
    step : arguments of `make_conformers`.
    """
    if step["plan"].settings.conformer_method != NVMOLKIT:
        return rows.map_batches(make_conformers, fn_kwargs=step, **ON_A_CORE)
    return rows.map_batches(
        MakeConformersOnGpu,
        fn_constructor_kwargs=step,
        batch_format="pyarrow",
        batch_size=GPU_BATCH,
        num_gpus=pool.gpus,
        compute=pool.strategy(),
    )


def longest_first(molecules: pa.Table, tables: Tables) -> list[pa.Table]:
    """Tasks in the order in which they are to start.

    Molecules that take longest come first, the others in the order given; tasks get smaller and
    smaller: few at first, and at the end no core waits long for another.
    """
    seconds = expected_seconds(molecules, tables)
    first = np.argsort(-seconds, kind="stable")[: math.ceil(LARGEST * len(seconds))]
    first = first[seconds[first] >= TASK_SECONDS[0]]
    order = np.concatenate([first, np.setdiff1d(np.arange(len(seconds)), first)])
    table, seconds = molecules.take(order), seconds[order]
    done = np.concatenate([[0.0], np.cumsum(seconds)])
    tasks, start, share = [table.slice(0, 0)], 0, 2 * cluster_cores()
    while start < len(seconds):
        if seconds[start] >= HARD_SECONDS:
            end = start + 1
        else:
            work = float(np.clip((done[-1] - done[start]) / share, *TASK_SECONDS))
            end = int(np.searchsorted(done, done[start] + work, side="right")) - 1
            end = min(max(end, start + 1), start + TASK_ROWS)
        tasks.append(table.slice(start, end - start))
        start = end
    return tasks[1:] or tasks


def in_slices(rows: pa.Table, most: int = TASK_ROWS) -> list[pa.Table]:
    """Rows in parts of at most so many, as many parts as cores if they are few."""
    size = int(np.clip(math.ceil(rows.num_rows / cluster_cores()), 1, most))
    return [rows.slice(start, size) for start in range(0, max(1, rows.num_rows), size)]
