"""Molecules to stored conformers: the flow's first stage, also by itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pyarrow as pa
import ray.data

from pipeline.encoding.cost.expected_work import ExpectedWork
from pipeline.encoding.graph import longest_first, with_conformers
from pipeline.encoding.in_store.given_structures import keep_given
from pipeline.encoding.in_store.tables import REJECTIONS
from pipeline.encoding.lookup import keys_of, pending_of, refused, unique, without
from pipeline.encoding.plan import EncodingPlan, encoder_pool
from pipeline.runtime import telemetry
from pipeline.store.keyed_table import KeyedTable, new_run_stamp

log = logging.getLogger(__name__)


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


def embed(molecules: pa.Table, plan: EncodingPlan) -> EmbedResult:
    """Make sure that the store has molecules' conformers, and say which cannot have any.

    Parameters
    ----------
    molecules : `key` and canonical `smiles`; a key may repeat.
    plan : of an encoder that needs conformers.

    Raises
    ------
    RuntimeError
        If a molecule is neither in the store nor rejected when the flow ends.
    """
    tables = plan.tables
    for table in (tables.conformers, tables.conformer_rejections):
        table.create()
    run = new_run_stamp()
    unusable = keep_given(molecules, tables, run)
    wanted = unique(molecules)
    todo = pending_of(without(wanted, unusable), plan).unmade
    before = pa.concat_tables([unusable, refused(todo, plan)])
    todo = without(todo, before)
    rejected = [before]
    log.info(
        "conformers: %s molecules, %s in the store, %s to make",
        f"{wanted.num_rows:,}", f"{wanted.num_rows - todo.num_rows:,}", f"{todo.num_rows:,}",
    )  # fmt: skip
    work = ExpectedWork.of(todo, todo, tables)
    progress = telemetry.Progress("conformers", todo.num_rows, work.total)
    if todo.num_rows:
        rows = ray.data.from_arrow(longest_first(todo, tables))
        step = {"plan": plan, "run": run}
        graph = with_conformers(rows, step, encoder_pool(plan.settings, plan.device))
        reasons = graph.select_columns(REJECTIONS.names)
        for batch in reasons.iter_batches(batch_size=None, batch_format="pyarrow"):
            rejected.append(batch.filter(batch["reason"].is_valid()))
            progress.advance(batch.num_rows, work.of_batch(batch))
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
        made=todo.num_rows - rejections.num_rows + before.num_rows,
        seconds=progress.seconds if todo.num_rows else 0.0,
    )
