"""The steps of the scoring graph: what runs on the workers, one chunk of a library at a time.

A chunk's scores are in one file, written once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline.encoding.cost.stage_times import nodes_of, shares_of
from pipeline.encoding.in_store.given_structures import given_rows
from pipeline.encoding.in_store.structures import with_structures
from pipeline.encoding.in_store.tables import (
    CONFORMERS,
    OUTCOMES,
    REJECTIONS,
    TO_ENCODE,
    in_schema,
)
from pipeline.encoding.lookup import known, pending_of, refused, unique, without
from pipeline.encoding.plan import EncoderPool, EncodingPlan
from pipeline.encoding.steps import EncodeBatch, make_conformers, make_graphs, read_conformers
from pipeline.molecules.folders import DataFile
from pipeline.molecules.formats import stream_rows
from pipeline.molecules.kinds import SMILES, Kind, named_for
from pipeline.molecules.parsers import Parser
from pipeline.molecules.reading.raw_rows import STRUCTURES
from pipeline.molecules.rejected import REJECTED, with_ids
from pipeline.molecules.settings import LibrarySettings
from pipeline.molecules.sources import FINGERPRINT, parse_block
from pipeline.runtime import dashboard_metrics as metrics
from pipeline.runtime import telemetry
from pipeline.runtime.files import parquet_bytes, remove, write_atomically
from pipeline.scoring.chunks import chunk_name, chunk_of, of_view, table_of, with_table
from pipeline.scoring.levels import SCORES
from pipeline.store.keyed_table import feature_matrix

if TYPE_CHECKING:
    from pipeline.scoring.verdicts import Judge  # would import torch

SCORES_FOLDER, REJECTED_FOLDER = "scores", "rejected"


@dataclass(frozen=True)
class Step:
    """What all steps need.

    Attributes
    ----------
    plans : reference to the plan of each view's encoder, its tables a snapshot of the store's.
    run : stamp of the shards that this run writes to the store.
    """

    plans: ray.ObjectRef
    run: str


def read_chunks(
    files: pa.Table, settings: LibrarySettings, rows: int, done: frozenset[str]
) -> Iterator[pa.Table]:
    """Chunks of data files, as far as they are not done: `chunk`, its name, and `rows` (RAW).

    Parameters
    ----------
    files : `number`, and the columns of DataFile.
    rows : of a chunk.
    """
    for file in files.to_pylist():
        number = file.pop("number")
        for place, piece in enumerate(stream_rows(DataFile(**file), settings, rows)):
            name = chunk_name(number, place)
            if name not in done:
                yield chunk_of(name, rows=piece)


def look_up(chunk: pa.Table, step: Step, parser: Parser) -> pa.Table:
    """Parse a chunk's rows and find in the store what it has of their molecules.

    Parameters
    ----------
    parser : of the source, see `parser_of`.

    Returns
    -------
    table
        `chunk`; `rows`, parsed; and of each view (see `of_view`) `features` that the store has;
        `molecules` ready to encode, or rejected before (TO_ENCODE); `unmade`, without a conformer
        (TO_EMBED).
    """
    parsed = parse_block(table_of(chunk, "rows"), parser, fingerprints=True)
    found, plain = {}, parsed.drop_columns([FINGERPRINT])
    for view, plan in ray.get(step.plans).items():
        for name, table in _look_up(plain, plan, step.run).items():
            found[of_view(name, view)] = table
    given = [name for name in STRUCTURES.names if name in parsed.column_names]
    return chunk_of(chunk["chunk"][0].as_py(), rows=parsed.drop_columns(given), **found)


def _look_up(parsed: pa.Table, plan: EncodingPlan, run: str) -> dict[str, pa.Table]:
    tables = plan.tables
    if tables.conformers is None:
        parsed = parsed.drop_columns([n for n in STRUCTURES.names if n in parsed.column_names])
    wanted = unique(parsed.filter(parsed["reason"].is_null()))
    found = known(wanted, plan)
    rejected = refused(without(wanted, found), plan)
    todo = without(without(wanted, found), rejected)
    given = given_rows(parsed.filter(pc.is_in(parsed["key"], todo["key"].combine_chunks())), tables)
    if given.num_rows:
        usable = given.filter(given["reason"].is_null())
        tables.conformers.write(usable.select(CONFORMERS.names), run)
    pending = pending_of(without(todo, given), plan)
    unmade, ready = pending.unmade, [in_schema(rejected, TO_ENCODE), given]
    if tables.conformers is None:
        unmade, ready = unmade.slice(0, 0), [*ready, in_schema(unmade, TO_ENCODE)]
    elif pending.stored.num_rows:
        ready.append(read_conformers(pending.stored, tables))
    return {
        "features": with_structures(tables.features.read(found["key"].to_pylist()), tables),
        "molecules": pa.concat_tables(ready),
        "unmade": unmade,
    }


class Embed:
    """A step that makes a chunk's missing conformers, on a core or in an actor on a GPU."""

    def __init__(self, step: Step):
        self.step = step

    def __call__(self, chunk: pa.Table) -> pa.Table:
        """`chunk` with `molecules` complete and `unmade` empty."""
        for view, plan in ray.get(self.step.plans).items():
            unmade = table_of(chunk, of_view("unmade", view))
            if unmade.num_rows:
                made = make_conformers(unmade, plan, self.step.run)
                ready = table_of(chunk, of_view("molecules", view))
                chunk = with_table(
                    chunk, of_view("molecules", view), pa.concat_tables([ready, made])
                )
                chunk = with_table(chunk, of_view("unmade", view), unmade.slice(0, 0))
        return chunk


def with_graphs(chunk: pa.Table, step: Step, views: Sequence[str]) -> pa.Table:
    """`chunk` with what some views' encoders read of its molecules; see `make_graphs`."""
    plans = ray.get(step.plans)
    for view in views:
        name = of_view("molecules", view)
        made = make_graphs(table_of(chunk, name), plans[view], step.run)
        chunk = with_table(chunk, name, made)
    return chunk


def ready_chunk(chunk: pa.Table, step: Step, parser: Parser) -> pa.Table:
    """A chunk looked up (see `look_up`), with its conformers."""
    return Embed(step)(look_up(chunk, step, parser))


class ScoreChunk:
    """Encoders and detector on one device: a chunk in, its verdicts and rejections written.

    Parameters
    ----------
    judge : reference to the `Judge`.
    output : folder or URI.
    """

    def __init__(self, step: Step, pool: EncoderPool, judge: ray.ObjectRef, output: str):
        self.plans, self.run, self.pool = ray.get(step.plans), step.run, pool
        self.encoders: dict[str, EncodeBatch] = {}  # those that were needed
        self.judge: Judge = ray.get(judge)
        self.device, self.output = pool.device, output
        if pool.device == "cpu":
            import torch  # the judge needs it anyway; its steps take one thread, as encoders do

            torch.set_num_threads(1)

    def __call__(self, chunk: pa.Table) -> pa.Table:
        """Score a chunk; its scores are written last, and make it done. Counts come out."""
        rows, outcomes, features = table_of(chunk, "rows"), [], {}
        encoded = 0
        for view in self.plans:
            had = table_of(chunk, of_view("features", view))
            features[view] = [had] if had.num_rows else []
            molecules = table_of(chunk, of_view("molecules", view))
            if molecules["reason"].null_count == 0:  # none, or all refused: no encoder is needed
                outcomes.append(in_schema(molecules, OUTCOMES))
                continue
            outcome, made = self._encoder(view).encode(molecules)
            outcomes.append(outcome)
            encoded = max(encoded, made.num_rows)
            features[view] += [made] if made.num_rows else []
        outcome = pa.concat_tables(outcomes)
        scores = self._scores(rows, features)
        refused = outcome.filter(outcome["reason"].is_valid()).select(REJECTIONS.names)
        unread = rows.filter(rows["reason"].is_valid()).select(REJECTED.names)
        parsed = rows.filter(rows["reason"].is_null())
        rejected = pa.concat_tables([unread, with_ids(refused, parsed)])
        if scores.num_rows + rejected.num_rows != rows.num_rows:
            raise RuntimeError(
                f"{rows.num_rows} rows went into a chunk, {scores.num_rows} were scored and "
                f"{rejected.num_rows} rejected; this is a fault of MolSieve, please report it"
            )
        name, kind = chunk["chunk"][0].as_py(), self.judge.checkpoint.kind
        if rejected.num_rows:
            write(self.output, REJECTED_FOLDER, name, rejected, kind)
        else:  # an earlier attempt may have rejected some
            remove(f"{self.output}/{REJECTED_FOLDER}/{name}.parquet")
        write(self.output, SCORES_FOLDER, name, scores, kind)
        metrics.count("scored", scores.num_rows)
        counts = {
            "rows": rows.num_rows,
            "fragments_removed": pc.sum(rows["fragments_removed"]).as_py() or 0,
            "encoded": encoded,
            "gpu_gb": telemetry.peak_gpu_memory_gb(),
            "resident_gb": telemetry.peak_resident_memory_gb(),
            **shares_of(outcome),
            **{name: json.dumps(found) for name, found in nodes_of(outcome).items()},
        }
        return pa.table({name: [value] for name, value in counts.items()})

    def _encoder(self, view: str) -> EncodeBatch:
        if view not in self.encoders:
            self.encoders[view] = EncodeBatch(self.plans[view], self.run, self.pool)
        return self.encoders[view]

    def _scores(self, rows: pa.Table, features: dict[str, list[pa.Table]]) -> pa.Table:
        """Verdicts on the rows that have every view's features, in order."""
        if not all(features.values()):
            return SCORES.empty_table()
        tables = {
            view: pa.concat_tables(found, promote_options="default")
            for view, found in features.items()
        }
        scored = rows.filter(rows["reason"].is_null())
        for table in tables.values():
            scored = scored.filter(pc.is_in(scored["key"], table["key"].combine_chunks()))
        if scored.num_rows == 0:
            return SCORES.empty_table()
        # A molecule of several rows is judged once.
        _, first, row_of = np.unique(
            scored["key"].to_pylist(), return_index=True, return_inverse=True
        )
        molecules = scored.take(first)
        blocks, structure = {}, pa.nulls(molecules.num_rows, pa.string())
        for view, table in tables.items():
            found = table.take(pc.index_in(molecules["key"], table["key"].combine_chunks()))
            blocks[view] = feature_matrix(found)
            if "structure" in found.column_names:  # an encoder without conformers gives none
                structure = pc.coalesce(found["structure"], structure)
        molecules = molecules.append_column("structure", structure)
        scores = self.judge.verdicts(molecules, blocks, self.device).take(pa.array(row_of))
        return scores.set_column(0, "id", scored["id"])


def write(output: str, folder: str, chunk: str, table: pa.Table, kind: Kind = SMILES) -> None:
    """Write a chunk's table into a folder of the output, its columns named as of the kind."""
    content = parquet_bytes(named_for(table, kind))
    write_atomically(f"{output}/{folder}/{chunk}.parquet", content)
