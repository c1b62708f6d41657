"""Molecules to stored features: the Ray Data graph, and what is left to do.

`encoding_graph` is the flow. Rows that a step rejects travel on with a reason, so that what
comes out is what went in; each step keeps its results in the store as soon as it has them, so
a run that is killed continues from there.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from pipeline import telemetry
from pipeline.cluster import GPU_BATCH, EncoderPool, cluster_cores, encoder_pool, settled
from pipeline.config import EncoderSettings
from pipeline.conformers import NVMOLKIT
from pipeline.encode_steps import (
    EncodeBatch,
    MakeConformersOnGpu,
    make_conformers,
    read_conformers,
)
from pipeline.store import Index, KeyedTable, new_run_stamp
from pipeline.tables import OUTCOMES, REJECTIONS, TO_EMBED, Tables
from pipeline.trunk import TrunkSpec
from pipeline.tuning import budget_of, tuned

log = logging.getLogger(__name__)

TRUNK_BATCH = 512  # molecules whose activations one shard holds at most
BLOCK_ROWS = (16, 256)  # fewest and most molecules in one conformer task
_ON_A_CORE = {"batch_format": "pyarrow", "batch_size": None, "num_cpus": 1}


@dataclass(frozen=True)
class EncodeResult:
    """What became of the molecules.

    Attributes
    ----------
    features : the table that holds the features.
    rejected : one row a rejected key: `key`, `smiles`, `stage`, `reason`.
    known, encoded : keys found in the store, and keys encoded by this run.
    seconds, rate : time that encoding took, model loading included, and molecules a second.
    peak_gpu_memory_gb, peak_resident_memory_gb : the largest of any encoder actor.
    padding_share : share of padding in the tokens that the encoders computed.
    identity : what decides the features; its `weights` is the label for reports.
    trunk : the table of activations, if they were asked for.
    """

    features: KeyedTable
    rejected: pa.Table
    known: int
    encoded: int
    seconds: float
    rate: float
    peak_gpu_memory_gb: float
    peak_resident_memory_gb: float
    padding_share: float
    identity: dict[str, Any]
    trunk: KeyedTable | None = None

    @property
    def label(self) -> dict[str, str]:
        """Which encoder and weights made the features, for every result file."""
        return {name: self.identity[name] for name in ("encoder", "weights")}


@dataclass(frozen=True)
class Pending:
    """Work left: what to embed, and the places of conformers that the store has."""

    unmade: pa.Table
    stored: pa.Table

    @property
    def rows(self) -> int:
        """Molecules to encode."""
        return self.unmade.num_rows + self.stored.num_rows


def encoding_graph(
    pending: Pending, tables: Tables, settings: EncoderSettings, run: str
) -> ray.data.Dataset:
    """The flow from molecules to features; its rows (OUTCOMES) say what became of each key.

    Parameters
    ----------
    run : stamp of the shards that this run writes.
    """
    pool = _tuned_pool(tables, settings)
    if tables.trunk is not None:  # a batch's activations pass through the host's memory
        pool = pool._replace(batch_size=min(pool.batch_size, TRUNK_BATCH))
    # Few molecules shall not leave an encoder without any.
    pool = pool._replace(batch_size=min(pool.batch_size, math.ceil(pending.rows / pool.actors)))
    batches = math.ceil(pending.rows / pool.batch_size)
    step = {"tables": tables, "settings": settings, "run": run}
    rows = ray.data.from_arrow(_blocks(pending.unmade))
    if tables.conformers is not None:
        if settings.conformer_method == NVMOLKIT:
            made = rows.map_batches(
                MakeConformersOnGpu,
                fn_constructor_kwargs=step,
                batch_format="pyarrow",
                batch_size=GPU_BATCH,
                num_gpus=pool.gpus,
                compute=ray.data.ActorPoolStrategy(size=pool.actors),
            )
        else:
            made = rows.map_batches(make_conformers, fn_kwargs=step, **_ON_A_CORE)
        rows = made.union(
            ray.data.from_arrow(_blocks(pending.stored)).map_batches(
                read_conformers, fn_kwargs={"tables": tables}, **_ON_A_CORE
            )
        )
    return rows.map_batches(
        EncodeBatch,
        fn_constructor_kwargs={**step, "pool": pool},
        batch_format="pyarrow",
        batch_size=pool.batch_size,
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        compute=ray.data.ActorPoolStrategy(size=min(pool.actors, batches)),
    )


def encode(
    molecules: pa.Table, settings: EncoderSettings, trunk: TrunkSpec | None = None
) -> EncodeResult:
    """Make sure that the store has the features of molecules, and say which cannot have any.

    Parameters
    ----------
    molecules : `key` and canonical `smiles`; a key may repeat.
    settings : the encoder, the store, and whether to compute anew.
    trunk : activations to keep besides the features.

    Raises
    ------
    InputError
        If the encoder is not installed, or its weights cannot be had or do not fit.
    RuntimeError
        If a molecule is neither in the store nor rejected when the flow ends.
    """
    settings = settled(settings)
    tables = Tables.of(settings, trunk)
    for table in tables:
        table.create()
    wanted = _unique(molecules)
    known = _known(wanted, tables, settings)
    refused = _refused(_without(wanted, known), tables, settings)
    todo = _without(_without(wanted, known), refused)
    log.info(
        "%s features (weights: %s): %s molecules, %s in the store, %s to encode",
        settings.foundation_model, tables.identity["weights"], f"{wanted.num_rows:,}",
        f"{known.num_rows:,}", f"{todo.num_rows:,}",
    )  # fmt: skip
    progress = telemetry.Progress(f"{settings.foundation_model} features", todo.num_rows)
    outcomes = [OUTCOMES.empty_table()]
    if todo.num_rows:
        pending = _pending(todo, tables, settings)
        graph = encoding_graph(pending, tables, settings, new_run_stamp())
        for batch in graph.iter_batches(batch_size=None, batch_format="pyarrow"):
            outcomes.append(batch)
            progress.advance(batch.num_rows)
    outcome = pa.concat_tables(outcomes)
    rejected_now = outcome.filter(outcome["reason"].is_valid()).select(REJECTIONS.names)
    rejected = pa.concat_tables([refused, rejected_now])
    for table in _made_by_encoders(tables):
        _check_nothing_lost(wanted, table.index(), rejected)
    return EncodeResult(
        features=tables.features,
        rejected=rejected,
        known=known.num_rows,
        encoded=outcome.num_rows - rejected_now.num_rows,
        seconds=progress.seconds if todo.num_rows else 0.0,
        rate=progress.rate if todo.num_rows else 0.0,
        peak_gpu_memory_gb=pc.max(outcome["gpu_gb"]).as_py() or 0.0,
        peak_resident_memory_gb=pc.max(outcome["resident_gb"]).as_py() or 0.0,
        padding_share=(pc.sum(outcome["padding"]).as_py() or 0.0)
        / max(1.0, pc.sum(outcome["tokens"]).as_py() or 0.0),
        identity=tables.identity,
        trunk=tables.trunk,
    )


def _made_by_encoders(tables: Tables) -> list[KeyedTable]:
    return [tables.features, *([] if tables.trunk is None else [tables.trunk])]


def _tuned_pool(tables: Tables, settings: EncoderSettings) -> EncoderPool:
    """The actors to start, with the batch sizes that jobs.tune found, if it ran."""
    pool = encoder_pool(settings)
    found = tuned(settings, tables.identity, pool)
    if found is None:
        return pool
    size = settings.encoding_batch_size or found.encoding_batch_size
    log.info("batches as jobs.tune chose: %s molecules, %s tokens", size, found.tokens)
    return pool._replace(batch_size=size, budget=budget_of(found.tokens, size))


def _unique(molecules: pa.Table) -> pa.Table:
    """One row a key, in the order of keys: hashes, so large and small molecules mix."""
    table = molecules.select(TO_EMBED.names).combine_chunks()
    return table.take(np.unique(_keys(table), return_index=True)[1])


def _known(wanted: pa.Table, tables: Tables, settings: EncoderSettings) -> pa.Table:
    """Molecules that the store has all of; none where it must be made anew."""
    if settings.force_recompute_cache:
        return wanted.slice(0, 0)
    keys = _keys(wanted)
    found = [table.index().find(keys) >= 0 for table in _made_by_encoders(tables)]
    return wanted.filter(pa.array(np.logical_and.reduce(found)))


def _refused(wanted: pa.Table, tables: Tables, settings: EncoderSettings) -> pa.Table:
    """Rejections of molecules wanted now that earlier runs kept."""
    refused = REJECTIONS.empty_table()
    if settings.force_recompute_cache or settings.retry_rejected:
        return refused
    for table in (tables.conformer_rejections, tables.feature_rejections):
        if table is not None:
            index, keys = table.index(), _keys(_without(wanted, refused))
            here = keys[index.find(keys) >= 0].astype(str)
            if table is tables.conformer_rejections and len(here):
                # A later run may have made what an earlier one gave up.
                here = here[tables.conformers.index().find(here) < 0]
            if len(here):
                found = table.read(here, index).select(REJECTIONS.names)
                refused = pa.concat_tables([refused, found])
    return refused


def _pending(todo: pa.Table, tables: Tables, settings: EncoderSettings) -> Pending:
    """Tell molecules to embed from those whose conformer is in the store."""
    if tables.conformers is None or settings.force_recompute_cache:
        return Pending(todo, todo.slice(0, 0))
    index = tables.conformers.index()
    have = index.find(_keys(todo)) >= 0
    places = tables.conformers.places(todo["key"].filter(pa.array(have)).to_pylist(), index)
    return Pending(todo.filter(pa.array(~have)), places)


def _without(table: pa.Table, others: pa.Table) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["key"], others["key"].combine_chunks())))


def _keys(table: pa.Table) -> np.ndarray:
    return np.array(table["key"].to_pylist(), dtype="S32")


def _check_nothing_lost(wanted: pa.Table, features: Index, rejected: pa.Table) -> None:
    keys = _keys(wanted)
    lost = (features.find(keys) < 0) & ~np.isin(keys, _keys(rejected))
    if lost.any():
        smiles = wanted["smiles"].filter(pa.array(lost)).to_pylist()
        raise RuntimeError(
            f"{len(smiles)} molecules were neither encoded nor rejected, the first: {smiles[:3]}; "
            "this is a fault of MolSieve, please report it"
        )


def _blocks(table: pa.Table) -> list[pa.Table]:
    """Slices that get smaller and smaller: few at first, and at the end no core waits long."""
    slices, start, cores = [table.slice(0, 0)], 0, cluster_cores()
    while start < table.num_rows:
        size = int(np.clip((table.num_rows - start) // (4 * cores), *BLOCK_ROWS))
        slices.append(table.slice(start, size))
        start += size
    return slices[1:] or slices
