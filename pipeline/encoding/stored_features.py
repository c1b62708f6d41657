"""Molecules to features in the store, or to the reason why they have none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.conformers.structure import structure_counts, structures_line
from pipeline.encoding.cost.costs import Costs, keep_costs
from pipeline.encoding.cost.expected_work import ExpectedWork
from pipeline.encoding.cost.stage_times import Stages, nodes_of, shares_of
from pipeline.encoding.cost.tuning import tuned_pool
from pipeline.encoding.graph import encoding_graph
from pipeline.encoding.in_store.given_structures import keep_given
from pipeline.encoding.in_store.structures import COLUMN, structures
from pipeline.encoding.in_store.tables import OUTCOMES, REJECTIONS
from pipeline.encoding.lookup import (
    Pending,
    keys_of,
    known,
    pending_of,
    refused,
    unique,
    without,
)
from pipeline.encoding.plan import EncoderPool, EncodingPlan
from pipeline.encoding.short_work import encoded_here, is_short
from pipeline.molecules.reading.raw_rows import STRUCTURES
from pipeline.molecules.rejected import with_ids
from pipeline.molecules.sources import Molecules
from pipeline.runtime import dashboard_metrics, telemetry
from pipeline.runtime.nodes.cluster import cores_now
from pipeline.store.keyed_table import Index, KeyedTable, new_run_stamp

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodeResult:
    """What became of the molecules.

    Attributes
    ----------
    features : the table that holds the features.
    rejected : one row a rejected key: `key`, `smiles`, `stage`, `reason`.
    known, encoded : keys found in the store, and keys encoded by this run.
    seconds, rate : time that encoding took, model loading included, and molecules a second.
    peak_gpu_memory_gb, peak_resident_memory_gb : the largest of any process that encoded.
    stages : what the stages did with their time; None if there was nothing to encode.
    identity : what decides the features; its `weights` is the label for reports.
    trunk : the table of activations, if they were asked for.
    residues : the table of residues' features, if they were asked for.
    conformers : the table of the conformers, if the encoder needs any.
    costs : of a molecule that this run made from the start, if there was one.
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
    residues: KeyedTable | None = None
    conformers: KeyedTable | None = None
    costs: Costs | None = None

    @property
    def label(self) -> dict[str, str]:
        """Which encoder and weights made the features, for every result file."""
        return {name: self.identity[name] for name in ("encoder", "weights")}


def encode(molecules: pa.Table, plan: EncodingPlan) -> EncodeResult:
    """Make sure that the store has the features of molecules, and say which cannot have any.

    Parameters
    ----------
    molecules : `key` and canonical `smiles`; a key may repeat. If their file gave structures,
        `raw_rows.STRUCTURES`.
    plan : the encoder, the store, and whether to compute anew.

    Raises
    ------
    RuntimeError
        If a molecule is neither in the store nor rejected when the flow ends.
    """
    tables, name = plan.tables, plan.settings.foundation_model
    for table in tables:
        table.create()
    run = new_run_stamp()
    unusable = keep_given(molecules, tables, run)
    wanted = unique(molecules)
    found = known(wanted, plan)
    rejected_before = refused(without(without(wanted, found), unusable), plan)
    rejected_before = pa.concat_tables([unusable, rejected_before])
    todo = without(without(wanted, found), rejected_before)
    log.info(
        "%s features (weights: %s): %s molecules, %s in the store, %s to encode",
        name, tables.identity["weights"], f"{wanted.num_rows:,}",
        f"{found.num_rows:,}", f"{todo.num_rows:,}",
    )  # fmt: skip
    dashboard_metrics.count("molecules_in", wanted.num_rows)
    outcomes = [OUTCOMES.empty_table()]
    if todo.num_rows:
        pool, pending = tuned_pool(plan), pending_of(todo, plan)
        work = ExpectedWork.of(todo, pending.unmade, tables)
        progress = telemetry.Progress(f"{name} features", todo.num_rows, work.total)
        here = is_short(pending, plan, pool)
        batches = encoded_here if here else _encoded_by_actors
        for batch in batches(pending, plan, pool, run):
            outcomes.append(batch)
            progress.advance(batch.num_rows, work.of_batch(batch))
    outcome = pa.concat_tables(outcomes)
    rejected_now = outcome.filter(outcome["reason"].is_valid()).select(REJECTIONS.names)
    rejected = pa.concat_tables([rejected_before, rejected_now])
    for table in tables.made_by_encoder:
        _check_nothing_lost(wanted, table.index(), rejected)
    stages = None
    if todo.num_rows:
        pool = pool._replace(actors=0 if here else pool.actors)
        stages = stages_of(pool, progress.seconds, **shares_of(outcome), nodes=nodes_of(outcome))
        log.info("%s", stages.hint)
    given = "coords" in molecules.column_names
    costs = Costs.of(outcome, tables, given)
    keep_costs(costs, plan, given)
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
        residues=tables.residues,
        conformers=tables.conformers,
        costs=costs,
    )


def _encoded_by_actors(
    pending: Pending, plan: EncodingPlan, pool: EncoderPool, run: str
) -> Iterator[pa.Table]:
    """What became of each molecule (OUTCOMES), batch by batch."""
    graph = encoding_graph(pending, plan, pool, run)
    yield from graph.iter_batches(batch_size=None, batch_format="pyarrow")


def stages_of(pool: EncoderPool, seconds: float, **found: Any) -> Stages:
    """A run's stages, from what its rows say.

    Parameters
    ----------
    found : other attributes of Stages.
    """
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


@dataclass(frozen=True)
class Encoded:
    """Molecules that have features, and the rows that could not get there.

    Attributes
    ----------
    molecules : rows with features: `id`, `key`, `smiles`, ..., `role` if roles were asked, and
        `structure`, null for an encoder without conformers.
    rejected : `id`, `smiles`, `stage`, `reason`.
    result : what encoding did.
    """

    molecules: pa.Table
    rejected: pa.Table
    result: EncodeResult

    @property
    def structures(self) -> dict[str, int]:
        """Molecules by structure; empty for an encoder without conformers."""
        if self.result.conformers is None:
            return {}
        return structure_counts(self.molecules[COLUMN].to_pylist())


def encode_molecules(molecules: pa.Table, source: Molecules, plan: EncodingPlan) -> Encoded:
    """Encode molecules of a source and tell those with features from the rejected rows."""
    result = encode(molecules, plan)
    refused = pc.is_in(molecules["key"], result.rejected["key"].combine_chunks())
    rejected = pa.concat_tables([source.rejected, with_ids(result.rejected, molecules)])
    given = [name for name in STRUCTURES.names if name in molecules.column_names]
    kept = molecules.filter(pc.invert(refused)).drop_columns(given)
    kept = kept.append_column(COLUMN, structures(kept["key"], plan.tables))
    encoded = Encoded(kept, rejected, result)
    if line := structures_line(encoded.structures):
        log.info("structures: %s", line)
    return encoded
