"""What jobs.encode calls: a data file's molecules to features in the store."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.plan import check_inputs, open_run
from pipeline.encoding.settings import EncodeSettings
from pipeline.encoding.stored_features import Encoded, encode_molecules
from pipeline.molecules.kinds import named_for
from pipeline.molecules.rejected import write_rejected
from pipeline.molecules.sources import Molecules
from pipeline.runtime.files import json_bytes, parquet_bytes, write_atomically


def run_encoding(settings: EncodeSettings) -> dict[str, Any]:
    """Encode all rows of a data file; write molecules, rejected rows and a summary.

    Returns
    -------
    dict
        The content of run_summary.json. In the output folder lie also molecules.parquet (each
        id with its key in the store and its structure) and rejected.parquet.
    """
    notes = check_inputs(settings)
    Tables.of(settings).with_residues(settings.residue_features)  # tells what cannot be
    plan, source = open_run(settings, notes)
    plan = plan.with_residues(settings.residue_features)
    encoded = encode_molecules(source.molecules, source, plan)
    if encoded.molecules.num_rows + encoded.rejected.num_rows != source.rows:
        raise RuntimeError(
            f"{source.rows} rows went in, {encoded.molecules.num_rows} came out and "
            f"{encoded.rejected.num_rows} were rejected; this is a fault of MolSieve"
        )
    write_rejected(encoded.rejected, settings.output_dir, kind=source.kind)
    molecules = named_for(encoded.molecules, source.kind)
    write_atomically(f"{settings.output_dir}/molecules.parquet", parquet_bytes(molecules))
    return write_summary(
        source, encoded, settings.dataset or settings.data_file, settings.output_dir
    )


def write_summary(source: Molecules, encoded: Encoded, dataset: str, folder: str) -> dict[str, Any]:
    """Write a folder's run_summary.json, and return its content."""
    result = encoded.result
    roles = (
        Counter(encoded.molecules["role"].to_pylist())
        if "role" in encoded.molecules.column_names
        else {}
    )
    summary = {
        **result.label,
        "dataset": dataset,
        "kind": source.kind.name,
        "reading": list(source.notes),
        "rows_in": source.rows,
        "fragments_removed": source.fragments_removed,
        "tidied": dict(source.tidied),
        "molecules_out": encoded.molecules.num_rows,
        "rejected": encoded.rejected.num_rows,
        "rejected_by_stage": dict(Counter(encoded.rejected["stage"].to_pylist())),
        "not_sampled": source.rows - encoded.molecules.num_rows - encoded.rejected.num_rows,
        "roles": roles,
        "structures": encoded.structures,
        "found_in_store": result.known,
        "encoded": result.encoded,
        "encoding_time_seconds": result.seconds,
        "encoding_molecules_per_second": result.rate,
        "peak_gpu_memory_encoding_gb": result.peak_gpu_memory_gb,
        "peak_resident_memory_encoding_gb": result.peak_resident_memory_gb,
        "padding_share": result.stages.padding_share if result.stages else 0.0,
        "stages": result.stages and result.stages.summary(),
        "features": result.features.uri,
        "residues": result.residues and result.residues.uri,
        "encoder_identity": result.identity,
    }
    write_atomically(f"{folder}/run_summary.json", json_bytes(summary))
    return summary
