"""The steps of the scoring graph: what runs on the workers, one chunk of a library at a time.

A chunk travels as one row, its tables as Arrow bytes in it, so that no step can mix chunks or
tear one apart: a chunk's scores are in one file, written once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline.encoding.given_structures import given_rows
from pipeline.encoding.lookup import known, pending_of, refused, unique, without
from pipeline.encoding.plan import EncoderPool, EncodingPlan
from pipeline.encoding.stage_times import nodes_of, shares_of
from pipeline.encoding.steps import EncodeBatch, make_conformers, read_conformers
from pipeline.encoding.structures import with_structures
from pipeline.encoding.tables import CONFORMERS, REJECTIONS, TO_ENCODE
from pipeline.molecules.folders import DataFile
from pipeline.molecules.formats import stream_rows
from pipeline.molecules.raw_rows import STRUCTURES
from pipeline.molecules.rejected import REJECTED, with_ids
from pipeline.molecules.settings import LibrarySettings
from pipeline.molecules.sources import parse_block
from pipeline.runtime import dashboard_metrics as metrics
from pipeline.runtime import telemetry
from pipeline.runtime.files import parquet_bytes, remove, write_atomically
from pipeline.scoring.calibration import Calibration
from pipeline.store.keyed_table import feature_matrix

SCORES = pa.schema(
    [
        ("id", pa.string()),
        ("smiles", pa.string()),
        ("energy", pa.float64()),
        ("p_value", pa.float64()),
        ("is_ood", pa.bool_()),
        ("structure", pa.string()),  # parts of earlier versions lack it
    ]
)
SCORES_FOLDER, REJECTED_FOLDER = "scores", "rejected"


@dataclass(frozen=True)
class Step:
    """What all steps need.

    Attributes
    ----------
    plan : reference to the encoder's plan, its tables a snapshot of the store's.
    run : stamp of the shards that this run writes to the store.
    """

    plan: ray.ObjectRef
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
                yield pa.table({"chunk": [name], "rows": [packed(piece)]})


def chunk_name(file: int, place: int) -> str:
    """The name that a chunk's results have."""
    return f"part-{file:05d}-{place:07d}"


def look_up(chunk: pa.Table, step: Step, fragments: str) -> pa.Table:
    """Parse a chunk's rows and find in the store what it has of their molecules.

    Parameters
    ----------
    fragments : as of `parse_block`.

    Returns
    -------
    table
        `chunk`; `rows`, parsed; `features` that the store has; `molecules` ready to encode, or
        rejected before (TO_ENCODE); `unmade`, without a conformer (TO_EMBED).
    """
    plan: EncodingPlan = ray.get(step.plan)
    tables = plan.tables
    parsed = parse_block(unpacked(chunk["rows"][0]), fragments)
    wanted = unique(parsed.filter(parsed["reason"].is_null()))
    found = known(wanted, plan)
    rejected = refused(without(wanted, found), plan)
    todo = without(without(wanted, found), rejected)
    given = given_rows(parsed.filter(pc.is_in(parsed["key"], todo["key"].combine_chunks())), tables)
    if given.num_rows:
        usable = given.filter(given["reason"].is_null())
        tables.conformers.write(usable.select(CONFORMERS.names), step.run)
    pending = pending_of(without(todo, given), plan)
    unmade, ready = pending.unmade, [_to_encode(rejected), given]
    if tables.conformers is None:
        unmade, ready = unmade.slice(0, 0), [*ready, _to_encode(unmade)]
    elif pending.stored.num_rows:
        ready.append(read_conformers(pending.stored, tables))
    return _row(
        chunk,
        rows=parsed.drop_columns([n for n in STRUCTURES.names if n in parsed.column_names]),
        features=with_structures(tables.features.read(found["key"].to_pylist()), tables),
        molecules=pa.concat_tables(ready),
        unmade=unmade,
    )


class Embed:
    """A step that makes a chunk's missing conformers, on a core or in an actor on a GPU."""

    def __init__(self, step: Step):
        self.step = step

    def __call__(self, chunk: pa.Table) -> pa.Table:
        """`chunk` with `molecules` complete and `unmade` empty."""
        unmade = unpacked(chunk["unmade"][0])
        if unmade.num_rows == 0:
            return chunk
        made = make_conformers(unmade, ray.get(self.step.plan), self.step.run)
        molecules = pa.concat_tables([unpacked(chunk["molecules"][0]), made])
        changed = _row(chunk, molecules=molecules, unmade=unmade.slice(0, 0))
        return changed.append_column("rows", chunk["rows"]).append_column(
            "features", chunk["features"]
        )


class ScoreChunk:
    """Encoder and head on one device: a chunk in, its scores and rejections written, counts out.

    Parameters
    ----------
    head : reference to the EnergyHead.
    output : folder or URI.
    """

    def __init__(
        self,
        step: Step,
        pool: EncoderPool,
        head: ray.ObjectRef,
        calibration: Calibration,
        alpha: float,
        output: str,
    ):
        self.encoder = EncodeBatch(ray.get(step.plan), step.run, pool)
        self.head, self.device = ray.get(head), pool.device
        self.calibration, self.alpha, self.output = calibration, alpha, output

    def __call__(self, chunk: pa.Table) -> pa.Table:
        """Score a chunk; its scores are written last, and make it done."""
        rows, features, molecules = (
            unpacked(chunk[name][0]) for name in ("rows", "features", "molecules")
        )
        outcome, made = self.encoder.encode(molecules)
        scores = self._scores(rows, [table for table in (features, made) if table.num_rows])
        refused = outcome.filter(outcome["reason"].is_valid()).select(REJECTIONS.names)
        unread = rows.filter(rows["reason"].is_valid()).select(REJECTED.names)
        parsed = rows.filter(rows["reason"].is_null())
        rejected = pa.concat_tables([unread, with_ids(refused, parsed)])
        if scores.num_rows + rejected.num_rows != rows.num_rows:
            raise RuntimeError(
                f"{rows.num_rows} rows went into a chunk, {scores.num_rows} were scored and "
                f"{rejected.num_rows} rejected; this is a fault of MolSieve, please report it"
            )
        name = chunk["chunk"][0].as_py()
        if rejected.num_rows:
            write(self.output, REJECTED_FOLDER, name, rejected)
        else:  # an earlier attempt may have rejected some
            remove(f"{self.output}/{REJECTED_FOLDER}/{name}.parquet")
        write(self.output, SCORES_FOLDER, name, scores)
        metrics.count("scored", scores.num_rows)
        counts = {
            "rows": rows.num_rows,
            "fragments_removed": pc.sum(rows["fragments_removed"]).as_py() or 0,
            "encoded": made.num_rows,
            "gpu_gb": telemetry.peak_gpu_memory_gb(),
            "resident_gb": telemetry.peak_resident_memory_gb(),
            **shares_of(outcome),
            **{name: json.dumps(found) for name, found in nodes_of(outcome).items()},
        }
        return pa.table({name: [value] for name, value in counts.items()})

    def _scores(self, rows: pa.Table, tables: list[pa.Table]) -> pa.Table:
        from pipeline.detectors.energy_head import energies_of  # imports torch

        if not tables:
            return SCORES.empty_table()
        features = pa.concat_tables(tables, promote_options="default")
        scored = rows.filter(pc.is_in(rows["key"], features["key"].combine_chunks()))
        place = pc.index_in(scored["key"], features["key"].combine_chunks()).to_numpy()
        energies = energies_of(self.head, feature_matrix(features), device=self.device)
        energies = energies[place].astype(np.float64)
        p_values = self.calibration.p_values(energies)
        columns = {
            "id": scored["id"],
            "smiles": scored["smiles"],
            "energy": energies,
            "p_value": p_values,
            "is_ood": p_values <= self.alpha,
            "structure": pa.nulls(scored.num_rows, pa.string()),
        }
        if "structure" in features.column_names:  # an encoder without conformers gives none
            columns["structure"] = features["structure"].take(pa.array(place))
        return pa.table(columns, schema=SCORES)


def write(output: str, folder: str, chunk: str, table: pa.Table) -> None:
    """Write a chunk's table into a folder of the output."""
    write_atomically(f"{output}/{folder}/{chunk}.parquet", parquet_bytes(table))


def packed(table: pa.Table) -> bytes:
    """A table as the bytes of an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def unpacked(content: pa.Scalar) -> pa.Table:
    """The table that `packed` made bytes of."""
    return pa.ipc.open_stream(content.as_buffer()).read_all()


def _row(chunk: pa.Table, **tables: pa.Table) -> pa.Table:
    content = {name: pa.array([packed(table)], pa.large_binary()) for name, table in tables.items()}
    return pa.table({"chunk": chunk["chunk"], **content})


def _to_encode(rows: pa.Table) -> pa.Table:
    """Rows with some of its columns in the schema TO_ENCODE."""
    columns = [
        rows[field.name] if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in TO_ENCODE
    ]
    return pa.table(columns, schema=TO_ENCODE)
