"""The steps of the encoding graph: what runs on the workers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.conformers.child_process import IsolatedEmbedder
from pipeline.conformers.conformer import NVMOLKIT, Conformer
from pipeline.conformers.settings import ConformerSettings
from pipeline.encoders import Encoder, encoder_class, load_encoder
from pipeline.encoders.graphs import graph_class, packed, unpacked
from pipeline.encoding.in_store.residue_table import fits, residue_table
from pipeline.encoding.in_store.structures import rows_of, structure_of_row
from pipeline.encoding.in_store.tables import (
    CONFORMERS,
    OUTCOMES,
    REJECTIONS,
    TO_EMBED,
    TO_ENCODE,
    Tables,
    in_schema,
)
from pipeline.encoding.plan import EncoderPool, EncodingPlan
from pipeline.runtime import dashboard_metrics, telemetry
from pipeline.runtime.errors import RowRejected
from pipeline.store.keyed_table import features_table

NOT_FINITE = "the encoder's features are not finite"
ENCODE = "encode"  # the stage of what an encoder, or its featurizer, cannot take
TOO_LARGE = "a residue's feature is too large for float16: --residue_features float32"


def make_conformers(batch: pa.Table, plan: EncodingPlan, run: str) -> pa.Table:
    """Embed molecules on this core or GPU; keep the conformers and the rejections."""
    rows = batch.select(TO_EMBED.names).to_pylist()
    smiles = [row["smiles"] for row in rows]
    tables, node, started = plan.tables, telemetry.node(), time.perf_counter()
    for row, made in zip(rows, _embed(smiles, plan.settings, tables.identity["hydrogens"])):
        row["conformer_seconds"] = time.perf_counter() - started
        row["conformer_node"] = node
        started += row["conformer_seconds"]
        if isinstance(made, RowRejected):
            row |= {"stage": "conformers", "reason": str(made)}
        else:
            row |= {"atoms": made.atoms, "coords": made.coords.ravel(), "kind": made.kind}
            row["structure"] = structure_of_row(row, tables)
    table = pa.Table.from_pylist(rows, schema=TO_ENCODE)
    made = table["reason"].is_null()
    dashboard_metrics.count("conformers", pc.sum(made).as_py() or 0)
    dashboard_metrics.count(
        "conformer_busy_seconds", pc.sum(table["conformer_seconds"]).as_py() or 0
    )
    dashboard_metrics.count(
        "rejected", table.num_rows - (pc.sum(made).as_py() or 0), stage="conformers"
    )
    tables.conformers.write(table.filter(made).select(CONFORMERS.names), run)
    tables.conformer_rejections.write(table.filter(pc.invert(made)).select(REJECTIONS.names), run)
    return table


class MakeConformersOnGpu:
    """`make_conformers` for an actor, which keeps its GPU's context from batch to batch."""

    def __init__(self, **step: Any):
        self.step = step

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Embed a batch."""
        return make_conformers(batch, **self.step)


def _embed(
    smiles: list[str], settings: ConformerSettings, hydrogens: bool
) -> Iterable[Conformer | RowRejected]:
    seed, method = settings.conformer_seed, settings.conformer_method
    if method == NVMOLKIT:
        from pipeline.conformers.nvmolkit_embedder import embed_many

        return embed_many(smiles, seed=seed, hydrogens=hydrogens)
    embedder = _embedder(
        seed=seed, hydrogens=hydrogens, method=method,
        limit_seconds=settings.conformer_seconds, limit_gb=settings.conformer_gb,
    )  # fmt: skip
    return map(embedder.embed_or_reject, smiles)


@lru_cache(maxsize=1)
def _embedder(**recipe: Any) -> IsolatedEmbedder:
    """This worker process's embedder; its child process serves batch after batch."""
    return IsolatedEmbedder(**recipe)


def read_conformers(places: pa.Table, tables: Tables) -> pa.Table:
    """Rows to encode from conformers that the store has; see `Pending.stored`."""
    if places.num_rows == 0:
        return TO_ENCODE.empty_table()
    found = tables.conformers.read_places(places)
    found = found.append_column("smiles", places["smiles"])
    structures = [structure_of_row(row, tables) for row in rows_of(found)]
    found = found.append_column("structure", pa.array(structures, pa.string()))
    return in_schema(found, TO_ENCODE)


def make_graphs(rows: pa.Table, plan: EncodingPlan, run: str) -> pa.Table:
    """Rows of TO_ENCODE with what the encoder reads of each, made on this core.

    Parameters
    ----------
    rows : some columns of TO_ENCODE.
    """
    table, kind = in_schema(rows, TO_ENCODE), graph_class(plan.settings.foundation_model)
    made = {name: table[name].to_pylist() for name in ("stage", "reason", "graph", "graph_seconds")}
    refused = []
    for place, row in enumerate(rows_of(table)):
        if row["reason"] is not None:
            continue
        started = time.perf_counter()
        try:
            made["graph"][place] = packed(kind.of_row(row))
        except RowRejected as rejection:
            made["stage"][place], made["reason"][place] = ENCODE, str(rejection)
            refused.append(place)
        made["graph_seconds"][place] = time.perf_counter() - started
    for name, values in made.items():
        field = TO_ENCODE.field(name)
        place = TO_ENCODE.get_field_index(name)
        table = table.set_column(place, field, pa.array(values, field.type))
    dashboard_metrics.count("graph_busy_seconds", pc.sum(table["graph_seconds"]).as_py() or 0)
    _keep_rejections(table.take(pa.array(refused, pa.int64())), plan.tables, run)
    return table


def _keep_rejections(rows: pa.Table, tables: Tables, run: str) -> None:
    dashboard_metrics.count("rejected", rows.num_rows, stage=ENCODE)
    # In another precision, or without residues, the feature can be had.
    kept = rows.filter(pc.not_equal(rows["reason"], TOO_LARGE))
    tables.feature_rejections.write(kept.select(REJECTIONS.names), run)


def pooled_encoder(plan: EncodingPlan, pool: EncoderPool) -> Encoder:
    """An encoder of the pool, in this process; on a CPU it takes one thread."""
    settings = plan.settings
    if pool.device == "cpu" and encoder_class(settings.foundation_model).uses_torch:
        import torch  # only here: workers that make conformers or fingerprints do without it

        torch.set_num_threads(1)
    size = {} if settings.model_size is None else {"model_size": settings.model_size}
    return load_encoder(
        settings.foundation_model,
        **size,
        weights=plan.weights,
        device=pool.device,
        precision=settings.precision,
        token_order=settings.token_order,
        finetuned=settings.finetuned,
        encoding_batch_size=pool.batch_size,
        budget=pool.budget,
        memory_share=pool.gpus or 1.0,
    )


class EncodeBatch:
    """One encoder on one device: rows in, features into the store, outcomes out.

    Parameters
    ----------
    encoder : one that is loaded already, and that threads may share; None loads the plan's.
    """

    def __init__(
        self, plan: EncodingPlan, run: str, pool: EncoderPool, encoder: Encoder | None = None
    ):
        self.tables, self.run = plan.tables, run
        self.encoder = pooled_encoder(plan, pool) if encoder is None else encoder
        # A molecule of which only what lies beside its feature is missing keeps that.
        more = len(plan.tables.made_by_encoder) > 1
        keeps = more and not plan.settings.force_recompute_cache
        self.have = plan.tables.features.index() if keeps else None
        telemetry.reset_peak_memory()
        self._ended = time.perf_counter()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode a batch; a row keeps its rejection, or gets one from this step."""
        return self.encode(batch)[0]

    def encode(self, batch: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The outcomes of a batch (OUTCOMES), and the features that it has now."""
        started = time.perf_counter()
        rows = rows_of(batch)
        ready, prepared = [], []
        fresh = [row.get("reason") is None for row in rows]
        for row in rows:
            if row.get("reason") is not None:
                continue
            try:
                prepared.append(self._input(row))
                ready.append(row)
            except RowRejected as rejection:
                row |= {"stage": ENCODE, "reason": str(rejection)}
        reasons, features = self._encode(ready, prepared)
        for row, reason in zip(ready, reasons):
            if reason is not None:
                row |= {"stage": ENCODE, "reason": reason}

        measured = self._measured(started, len(rows))
        outcome = pa.Table.from_pylist(
            [{name: row.get(name) for name in OUTCOMES.names} | measured for row in rows],
            schema=OUTCOMES,
        )
        # Not those that the store rejected before.
        mine = pc.and_(outcome["reason"].is_valid(), pa.array(fresh, pa.bool_()))
        dashboard_metrics.count("encoded", features.num_rows)
        _keep_rejections(outcome.filter(mine), self.tables, self.run)
        return outcome, features

    def _input(self, row: dict[str, Any]) -> Any:
        """A row as the encoder's input, which a task may have made already."""
        graph = row.pop("graph", None)
        if graph is None:
            return self.encoder.prepare(row)
        return unpacked(graph, graph_class(self.encoder.name))

    def _measured(self, started: float, rows: int) -> dict[str, Any]:
        """What every row of a batch says of it."""
        tokens, padding = self.encoder.take_token_counts()
        now = time.perf_counter()
        sums = {
            "tokens": tokens, "padding": padding,
            "busy_seconds": now - started, "waiting_seconds": started - self._ended,
        }  # fmt: skip
        self._ended = now
        for name, value in sums.items():
            prefix = "encoder_" if name.endswith("seconds") else ""
            dashboard_metrics.count(f"{prefix}{name}", value)
        peaks = {
            "gpu_gb": telemetry.peak_gpu_memory_gb(),
            "resident_gb": telemetry.peak_resident_memory_gb(),
        }
        dashboard_metrics.show("resident_memory_gb", peaks["resident_gb"])
        dashboard_metrics.show("device_memory_gb", peaks["gpu_gb"])
        for name, value in telemetry.gpu_load().items():
            dashboard_metrics.show(name, value)
        means = {name: value / max(1, rows) for name, value in sums.items()}
        return {**peaks, **means, "encoder_node": telemetry.node()}

    def _encode(
        self, rows: list[dict[str, Any]], prepared: list[Any]
    ) -> tuple[list[str | None], pa.Table]:
        """Encode and keep what is finite; why each is not, or None, and the features that are."""
        trunk = residues = None
        if self.tables.trunk is not None:
            spec = self.tables.trunk.settings["trunk"]
            features, trunk = self.encoder.encode_with_trunk(prepared, **spec)
        elif self.tables.residues is not None:
            features, residues = self.encoder.encode_with_residues(prepared)
        else:
            features = self.encoder.encode_prepared(prepared)
        finite = np.isfinite(features).all(axis=1)
        reasons = [None if fine else NOT_FINITE for fine in finite]
        if residues is not None:
            precision = self.tables.residues.settings["residues"]
            reasons = [
                reason or (None if fits(each, precision) else TOO_LARGE)
                for reason, each in zip(reasons, residues)
            ]
        kept = [i for i, reason in enumerate(reasons) if reason is None]
        keys = [rows[i]["key"] for i in kept]
        if trunk is not None:
            from pipeline.encoding.in_store.trunk_table import trunk_table

            self.tables.trunk.write(trunk_table(keys, [trunk[i] for i in kept]), self.run)
        if residues is not None:
            kept_residues = residue_table(keys, [residues[i] for i in kept], precision)
            self.tables.residues.write(kept_residues, self.run)
        structures = None
        if self.tables.conformers is not None:
            structures = [rows[i]["structure"] for i in kept]
        made = features_table(keys, features[kept], structures)
        new = made
        if self.have is not None:
            new = made.filter(pa.array(self.have.find(made["key"].to_pylist()) < 0))
        self.tables.features.write(new, self.run)
        return reasons, made
