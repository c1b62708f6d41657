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

from pipeline import metrics, telemetry
from pipeline.cluster import cores_now, encoder_pool, settled
from pipeline.config import EncoderSettings
from pipeline.embed import ON_A_CORE, blocks, with_conformers
from pipeline.encode_steps import (
    EncodeBatch,
    read_conformers,
)
from pipeline.lookup import (
    Pending,
    keys_of,
    known,
    made_by_encoders,
    pending_of,
    refused,
    unique,
    without,
)
from pipeline.stages import Stages, nodes_of, shares_of
from pipeline.store import Index, KeyedTable, new_run_stamp
from pipeline.tables import OUTCOMES, REJECTIONS, Tables
from pipeline.trunk import TrunkSpec
from pipeline.tuning import tuned_pool

log = logging.getLogger(__name__)

TRUNK_BATCH = 512  # molecules whose activations one shard holds at most


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
    stages : what the stages did with their time; None if there was nothing to encode.
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
    stages: Stages | None
    identity: dict[str, Any]
    trunk: KeyedTable | None = None

    @property
    def label(self) -> dict[str, str]:
        """Which encoder and weights made the features, for every result file."""
        return {name: self.identity[name] for name in ("encoder", "weights")}


def encoding_graph(
    pending: Pending, tables: Tables, settings: EncoderSettings, run: str
) -> ray.data.Dataset:
    """The flow from molecules to features; its rows (OUTCOMES) say what became of each key.

    Parameters
    ----------
    run : stamp of the shards that this run writes.
    """
    pool = tuned_pool(tables, settings)
    if tables.trunk is not None:  # a batch's activations pass through the host's memory
        pool = pool._replace(batch_size=min(pool.batch_size, TRUNK_BATCH))
    # Few molecules shall not leave an encoder without any.
    pool = pool._replace(batch_size=min(pool.batch_size, math.ceil(pending.rows / pool.actors)))
    batches = math.ceil(pending.rows / pool.batch_size)
    step = {"tables": tables, "settings": settings, "run": run}
    rows = ray.data.from_arrow(blocks(pending.unmade))
    if tables.conformers is not None:
        rows = with_conformers(rows, step, pool).union(
            ray.data.from_arrow(blocks(pending.stored)).map_batches(
                read_conformers, fn_kwargs={"tables": tables}, **ON_A_CORE
            )
        )
    return rows.map_batches(
        EncodeBatch,
        fn_constructor_kwargs={**step, "pool": pool},
        batch_format="pyarrow",
        batch_size=pool.batch_size,
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        compute=pool.strategy(batches),
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
    wanted = unique(molecules)
    found = known(wanted, tables, settings)
    rejected_before = refused(without(wanted, found), tables, settings)
    todo = without(without(wanted, found), rejected_before)
    log.info(
        "%s features (weights: %s): %s molecules, %s in the store, %s to encode",
        settings.foundation_model, tables.identity["weights"], f"{wanted.num_rows:,}",
        f"{found.num_rows:,}", f"{todo.num_rows:,}",
    )  # fmt: skip
    metrics.count("molecules_in", wanted.num_rows)
    progress = telemetry.Progress(f"{settings.foundation_model} features", todo.num_rows)
    outcomes = [OUTCOMES.empty_table()]
    if todo.num_rows:
        pending = pending_of(todo, tables, settings)
        graph = encoding_graph(pending, tables, settings, new_run_stamp())
        for batch in graph.iter_batches(batch_size=None, batch_format="pyarrow"):
            outcomes.append(batch)
            progress.advance(batch.num_rows)
    outcome = pa.concat_tables(outcomes)
    rejected_now = outcome.filter(outcome["reason"].is_valid()).select(REJECTIONS.names)
    rejected = pa.concat_tables([rejected_before, rejected_now])
    for table in made_by_encoders(tables):
        _check_nothing_lost(wanted, table.index(), rejected)
    stages = None
    if todo.num_rows:
        stages = stages_of(
            settings, progress.seconds, **shares_of(outcome), nodes=nodes_of(outcome)
        )
        log.info("%s", stages.hint)
    return EncodeResult(
        features=tables.features,
        rejected=rejected,
        known=found.num_rows,
        encoded=outcome.num_rows - rejected_now.num_rows,
        seconds=progress.seconds if todo.num_rows else 0.0,
        rate=progress.rate if todo.num_rows else 0.0,
        peak_gpu_memory_gb=pc.max(outcome["gpu_gb"]).as_py() or 0.0,
        peak_resident_memory_gb=pc.max(outcome["resident_gb"]).as_py() or 0.0,
        stages=stages,
        identity=tables.identity,
        trunk=tables.trunk,
    )


def stages_of(settings: EncoderSettings, seconds: float, **found: Any) -> Stages:
    """A run's stages, from what its rows say.

    Parameters
    ----------
    found : other attributes of Stages.
    """
    pool = encoder_pool(settings)
    return Stages(seconds, cores_now(), pool.actors, pool.device == "cuda", **found)


def _check_nothing_lost(wanted: pa.Table, features: Index, rejected: pa.Table) -> None:
    keys = keys_of(wanted)
    lost = (features.find(keys) < 0) & ~np.isin(keys, keys_of(rejected))
    if lost.any():
        smiles = wanted["smiles"].filter(pa.array(lost)).to_pylist()
        raise RuntimeError(
            f"{len(smiles)} molecules were neither encoded nor rejected, the first: {smiles[:3]}; "
            "this is a fault of MolSieve, please report it"
        )
