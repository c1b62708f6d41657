"""What jobs.fold calls: a data file's sequences to structures in the store."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.in_store.tables import REJECTIONS
from pipeline.encoding.lookup import keys_of, rejections_in, unique, without
from pipeline.folding.expected_work import expected_work
from pipeline.folding.features import MOST_RESIDUES
from pipeline.folding.makers import Maker, check_maker, maker_of
from pipeline.folding.settings import FoldSettings
from pipeline.folding.tables import OUTCOMES, STAGE, STRUCTURES, check_room
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.kinds import SEQUENCE
from pipeline.molecules.parsers import parser_of
from pipeline.molecules.rejected import kind_of, warn_if_many, with_ids, write_rejected
from pipeline.molecules.sources import Molecules, parse_rows
from pipeline.runtime import telemetry
from pipeline.runtime.errors import InputError, RowRejected, RowsMissing, told
from pipeline.runtime.files import json_bytes, write_atomically
from pipeline.runtime.nodes.cluster import start_ray
from pipeline.store.keyed_table import new_run_stamp

log = logging.getLogger(__name__)

# Names of their own: jobs.encode may write into the same folder.
SUMMARY, REJECTED_FILE = "folding_summary.json", "rejected_structures"


@dataclass(frozen=True)
class FoldResult:
    """What became of the sequences.

    Attributes
    ----------
    rejected : one row a rejected key: `key`, `smiles`, `stage`, `reason`.
    found, made : keys whose structure the store had, and that this run made.
    seconds : that making took.
    peak_gpu_memory_gb, peak_resident_memory_gb : the largest of any actor.
    """

    rejected: pa.Table
    found: int
    made: int
    seconds: float = 0.0
    peak_gpu_memory_gb: float = 0.0
    peak_resident_memory_gb: float = 0.0


def run_folding(settings: FoldSettings) -> dict[str, Any]:
    """Make, or read, structures of all sequences of a data file; write rejected rows and a summary.

    Returns
    -------
    dict
        The content of SUMMARY; its `structures` is what `tables.opened` opens.
    """
    notes = check_files(settings)
    if parser_of(settings).kind is not SEQUENCE:
        raise InputError(
            f"{settings.data_file} holds SMILES; jobs.fold takes sequences: a FASTA file, or a "
            "table with --sequence_column"
        )
    check_maker(settings)
    rows = read_rows(settings)
    start_ray()
    maker = maker_of(settings)
    source = parse_rows(rows, settings)
    result, rows = _folded_and_kept(source.molecules, maker, settings)
    rejected_now = with_ids(result.rejected, source.molecules)
    warn_if_many(Counter(rejected_now["reason"].to_pylist()), source.rows, settings.data_file)
    rejected = pa.concat_tables([source.rejected, rejected_now])
    write_rejected(rejected, settings.output_dir, REJECTED_FILE, SEQUENCE)
    return _write_summary(source, rejected, result, rows, maker, settings, notes)


def _folded_and_kept(
    molecules: pa.Table, maker: Maker, settings: FoldSettings
) -> tuple[FoldResult, pa.Table]:
    """What became of sequences, and `residues`, `plddt` and `notes` of those with a structure.

    Other runs may make room in the store meanwhile; what they removed is made again, once.
    """
    result = fold(molecules, maker, settings)
    try:
        return result, _kept(molecules, result, maker)
    except RowsMissing as error:
        log.warning("%s; making them again", told(error))
    again = replace(settings, force_recompute_cache=False, retry_rejected=False)
    result = fold(molecules, maker, again)
    try:
        return result, _kept(molecules, result, maker)
    except RowsMissing as error:
        raise InputError(
            f"--store_gb {settings.store_gb:g}: structures of this run were removed to make room "
            f"before its end, twice ({told(error)}); give more"
        ) from None


def _kept(molecules: pa.Table, result: FoldResult, maker: Maker) -> pa.Table:
    """What the summary tells of the structures; RowsMissing if one is not in the store."""
    columns = ["residues", "plddt", "notes"]
    keys = without(unique(molecules), result.rejected)["key"].to_pylist()
    if not keys:
        return STRUCTURES.empty_table().select(columns)
    return maker.table.read(keys, columns=columns)


def fold(molecules: pa.Table, maker: Maker, settings: FoldSettings) -> FoldResult:
    """Make sure that the store has the structures of sequences, and say which cannot have any.

    Parameters
    ----------
    molecules : `id`, `key`, `smiles` (the canonical sequence); a key may repeat.

    Raises
    ------
    InputError
        If the store may not take as much as they need.
    RuntimeError
        If nothing is known of a sequence in the end.
    """
    wanted = unique(molecules)
    wanted, no_source = _with_sources(wanted, maker.sources(wanted, _ids_of(molecules)))
    check_room(wanted["smiles"], settings.store_gb)
    for table in filter(None, (maker.table, maker.rejections)):
        table.create()
    run = new_run_stamp()
    found = _found(wanted, maker, settings)
    refused = _refused(without(wanted, found), maker, settings)
    todo = without(without(wanted, found), refused)
    log.info(
        "structures (%s): %s sequences, %s in the store, %s to make",
        maker.label, f"{wanted.num_rows + no_source.num_rows:,}", f"{found.num_rows:,}",
        f"{todo.num_rows:,}",
    )  # fmt: skip
    outcomes, seconds = _make(todo, maker, run)
    rejected_now = outcomes.filter(outcomes["reason"].is_valid()).select(REJECTIONS.names)
    rejected = pa.concat_tables([no_source, refused, rejected_now])
    _check_nothing_lost(todo, outcomes)
    return FoldResult(
        rejected=rejected,
        found=found.num_rows,
        made=outcomes.num_rows - rejected_now.num_rows,
        seconds=seconds,
        peak_gpu_memory_gb=pc.max(outcomes["gpu_gb"]).as_py() or 0.0,
        peak_resident_memory_gb=pc.max(outcomes["resident_gb"]).as_py() or 0.0,
    )


def _ids_of(molecules: pa.Table) -> dict[str, list[str]]:
    ids = defaultdict(list)
    for row in molecules.select(["id", "key"]).to_pylist():
        ids[row["key"]].append(row["id"])
    return ids


def _with_sources(wanted: pa.Table, sources: list[str | RowRejected]) -> tuple[pa.Table, pa.Table]:
    """Sequences with their `source`, and the rejections (REJECTIONS) of those that have none."""
    lengths = pc.utf8_length(wanted["smiles"]).to_pylist()
    sources = [_too_long(n) if n > MOST_RESIDUES else each for n, each in zip(lengths, sources)]
    none = [isinstance(source, RowRejected) for source in sources]
    rejected = wanted.filter(pa.array(none, pa.bool_())).to_pylist()
    reasons = [str(source) for source in sources if isinstance(source, RowRejected)]
    rows = [{**row, "stage": STAGE, "reason": why} for row, why in zip(rejected, reasons)]
    texts = [None if lacks else source for lacks, source in zip(none, sources)]
    wanted = wanted.append_column("source", pa.array(texts, pa.string()))
    return (
        wanted.filter(wanted["source"].is_valid()),
        pa.Table.from_pylist(rows, schema=REJECTIONS),
    )


def _too_long(residues: int) -> RowRejected:
    return RowRejected(f"more than the {MOST_RESIDUES:,} residues that can be kept: {residues:,}")


def _found(wanted: pa.Table, maker: Maker, settings: FoldSettings) -> pa.Table:
    """Sequences whose structure the store has."""
    index = maker.table.index()
    there = wanted.filter(pa.array(index.find(keys_of(wanted)) >= 0))
    if settings.force_recompute_cache or there.num_rows == 0:
        return wanted.slice(0, 0)
    # Reading counts as a use: other structures go first where room is needed.
    maker.table.read(there["key"].to_pylist(), index, columns=["residues"])
    return there


def _refused(wanted: pa.Table, maker: Maker, settings: FoldSettings) -> pa.Table:
    """Rejections that earlier runs kept."""
    again = settings.force_recompute_cache or settings.retry_rejected
    if maker.rejections is None or again:
        return REJECTIONS.empty_table()
    return rejections_in(maker.rejections, wanted)


def _make(todo: pa.Table, maker: Maker, run: str) -> tuple[pa.Table, float]:
    """OUTCOMES of what is to do, and the seconds that it took."""
    outcomes = [OUTCOMES.empty_table()]
    if todo.num_rows == 0:
        return outcomes[0], 0.0
    lengths = pc.utf8_length(todo["smiles"]).to_numpy()
    progress = telemetry.Progress(
        "structures", todo.num_rows, float(expected_work(lengths).sum()), unit=SEQUENCE.many
    )
    for batch in maker.outcomes(todo, run):
        outcomes.append(batch)
        progress.advance(batch.num_rows, float(expected_work(batch["residues"].to_numpy()).sum()))
    return pa.concat_tables(outcomes), progress.seconds


def _check_nothing_lost(todo: pa.Table, outcomes: pa.Table) -> None:
    lost = without(todo, outcomes).num_rows
    if lost or outcomes.num_rows != todo.num_rows:
        raise RuntimeError(
            f"{todo.num_rows} sequences went in, {outcomes.num_rows} came out, {lost} were lost; "
            "this is a fault of MolSieve, please report it"
        )


def _write_summary(
    source: Molecules, rejected: pa.Table, result: FoldResult, rows: pa.Table, maker: Maker,
    settings: FoldSettings, notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Write the output folder's SUMMARY, and return its content.

    Parameters
    ----------
    rows : of `_kept`.
    """
    plddt = rows["plddt"].drop_null()
    settled = Counter(note for each in rows["notes"].to_pylist() for note in each)
    summary = {
        "dataset": settings.dataset or settings.data_file,
        "reading": list(notes),
        "made_by": maker.label,
        "rows_in": source.rows,
        "tidied": dict(source.tidied),
        "rows_out": source.rows - rejected.num_rows,
        "rejected": rejected.num_rows,
        "rejected_by_stage": dict(Counter(rejected["stage"].to_pylist())),
        "rejected_by_reason": dict(Counter(map(kind_of, rejected["reason"].to_pylist()))),
        "found_in_store": result.found,
        "made": result.made,
        "residues": pc.sum(rows["residues"]).as_py() or 0,
        "mean_plddt": pc.mean(plddt).as_py(),
        "structures_with_plddt": len(plddt),
        "settled": dict(settled),
        **maker.summary,
        "seconds": result.seconds,
        "peak_gpu_memory_gb": result.peak_gpu_memory_gb,
        "peak_resident_memory_gb": result.peak_resident_memory_gb,
        "store_gb": settings.store_gb,
        "structures": maker.table.uri,
        "identity": maker.table.settings,
    }
    write_atomically(f"{settings.output_dir}/{SUMMARY}", json_bytes(summary))
    return summary
