"""Molecules to stored conformers: the flow's first stage, also by itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from pipeline import telemetry
from pipeline.cluster import GPU_BATCH, EncoderPool, cluster_cores, encoder_pool
from pipeline.config import EncoderSettings
from pipeline.conformers import NVMOLKIT
from pipeline.encode_steps import MakeConformersOnGpu, make_conformers
from pipeline.lookup import keys_of, refused, unique, without
from pipeline.store import KeyedTable, new_run_stamp
from pipeline.tables import REJECTIONS, Tables

log = logging.getLogger(__name__)

# Fewest and most molecules in one conformer task. Ray Data looks for ended tasks every 0.1 s: on
# two simulated nodes ray.timeline shows a core idle for 0.1 to 0.2 s between tasks.
BLOCK_ROWS = (24, 384)
ON_A_CORE = {"batch_format": "pyarrow", "batch_size": None, "num_cpus": 1}


@dataclass(frozen=True)
class EmbedResult:
    """What became of the molecules.

    Attributes
    ----------
    conformers : the table that holds them.
    keys : of the molecules that it holds, each once, in order.
    rejected : one row a rejected key: `key`, `smiles`, `stage`, `reason`.
    made, seconds : conformers that this run made, and the time that it took.
    """

    conformers: KeyedTable
    keys: list[str]
    rejected: pa.Table
    made: int
    seconds: float


def embed(molecules: pa.Table, settings: EncoderSettings) -> EmbedResult:
    """Make sure that the store has molecules' conformers, and say which cannot have any.

    Parameters
    ----------
    molecules : `key` and canonical `smiles`; a key may repeat.
    settings : of an encoder that needs conformers.

    Raises
    ------
    RuntimeError
        If a molecule is neither in the store nor rejected when the flow ends.
    """
    tables = Tables.of(settings)
    for table in (tables.conformers, tables.conformer_rejections):
        table.create()
    wanted = unique(molecules)
    todo = wanted
    if not settings.force_recompute_cache:
        known = tables.conformers.index().find(keys_of(wanted)) >= 0
        todo = wanted.filter(pa.array(~known))
    rejected = [refused(todo, tables, settings)]
    todo = without(todo, rejected[0])
    log.info(
        "conformers: %s molecules, %s in the store, %s to make",
        f"{wanted.num_rows:,}", f"{wanted.num_rows - todo.num_rows:,}", f"{todo.num_rows:,}",
    )  # fmt: skip
    progress = telemetry.Progress("conformers", todo.num_rows)
    if todo.num_rows:
        step = {"tables": tables, "settings": settings, "run": new_run_stamp()}
        rows = ray.data.from_arrow(blocks(todo))
        graph = with_conformers(rows, step, encoder_pool(settings))
        reasons = graph.select_columns(REJECTIONS.names)
        for batch in reasons.iter_batches(batch_size=None, batch_format="pyarrow"):
            rejected.append(batch.filter(batch["reason"].is_valid()))
            progress.advance(batch.num_rows)
    rejections = pa.concat_tables(rejected)
    kept = without(wanted, rejections)
    lost = (tables.conformers.index().find(keys_of(kept)) < 0).sum()
    if lost:
        raise RuntimeError(
            f"{lost} molecules have neither a conformer nor a reason; this is a fault of MolSieve, "
            "please report it"
        )
    return EmbedResult(
        conformers=tables.conformers,
        keys=kept["key"].to_pylist(),
        rejected=rejections,
        made=todo.num_rows - rejections.num_rows + rejected[0].num_rows,
        seconds=progress.seconds if todo.num_rows else 0.0,
    )


def with_conformers(
    rows: ray.data.Dataset, step: dict[str, Any], pool: EncoderPool
) -> ray.data.Dataset:
    """Rows of TO_EMBED to rows of TO_ENCODE: tasks on all cores, or actors on GPUs.

    Parameters
    ----------
    step : arguments of `make_conformers`.
    """
    if step["settings"].conformer_method != NVMOLKIT:
        return rows.map_batches(make_conformers, fn_kwargs=step, **ON_A_CORE)
    return rows.map_batches(
        MakeConformersOnGpu,
        fn_constructor_kwargs=step,
        batch_format="pyarrow",
        batch_size=GPU_BATCH,
        num_gpus=pool.gpus,
        compute=pool.strategy(),
    )


def blocks(table: pa.Table) -> list[pa.Table]:
    """Slices that get smaller and smaller: few at first, and at the end no core waits long."""
    slices, start, cores = [table.slice(0, 0)], 0, cluster_cores()
    while start < table.num_rows:
        size = int(np.clip((table.num_rows - start) // (2 * cores), *BLOCK_ROWS))
        slices.append(table.slice(start, size))
        start += size
    return slices[1:] or slices
