"""What jobs.score calls: a checkpoint and a library of any size to scores.

The driver sees counts alone.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.conformers.structure import structure_counts
from pipeline.detectors.energy_head import energies_of
from pipeline.encoding.plan import EncodingPlan, check_structures, plan_encoding
from pipeline.encoding.stored_features import encode, stages_of
from pipeline.encoding.tuning import tuned_pool
from pipeline.molecules.folders import data_files
from pipeline.molecules.formats import check_files
from pipeline.molecules.rejected import warn_if_many
from pipeline.molecules.sources import check_first_rows
from pipeline.runtime import telemetry
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, write_atomically
from pipeline.scoring.calibration import Calibration
from pipeline.scoring.extremes import write_extremes
from pipeline.scoring.graph import scoring_graph
from pipeline.scoring.output_folder import done_chunks
from pipeline.scoring.repeated_ids import repeated_ids
from pipeline.scoring.settings import ScoreSettings
from pipeline.scoring.totals import Totals
from pipeline.training.checkpoint import Checkpoint, load_checkpoint
from pipeline.training.checkpoint_encoder import check_same_encoder, settings_of

log = logging.getLogger(__name__)


def run_scoring(settings: ScoreSettings) -> dict[str, Any]:
    """Score every molecule of a library; write its scores, rejected rows and a summary.

    Returns
    -------
    dict
        The content of run_summary.json. In the output folder lie also `scores` (a Parquet
        dataset of SCORES), `rejected` (`id`, `smiles`, `stage`, `reason`), and of the most and
        least OOD molecules top.csv, most_ood.png and least_ood.png.

    Raises
    ------
    InputError
        If a file is missing or unreadable, the encoder is not the one that the head was
        trained on, alpha is below any p-value, or the output folder holds other scores.
    """
    checkpoint = load_checkpoint(settings.checkpoint)
    encoder = settings_of(
        checkpoint, settings, data_file=settings.data_file,
        conformer_seconds=settings.conformer_seconds, conformer_gb=settings.conformer_gb,
        fragments=settings.fragments,
    )  # fmt: skip
    settings = replace(settings, fragments=encoder.fragments)
    encoder = replace(  # None too: the training run's machine may have been another
        encoder, encoding_batch_size=settings.encoding_batch_size,
        encoder_workers=settings.encoder_workers,
    )  # fmt: skip
    notes = check_files(settings)
    check_same_encoder(checkpoint, encoder)
    if settings.structures != encoder.structures:
        log.warning(
            "--structures %s, but the head was trained with --structures %s: features of other "
            "coordinates differ", settings.structures, encoder.structures,
        )  # fmt: skip
    files = data_files(settings.data_file)
    check_first_rows(files[0], settings)
    plan = plan_encoding(encoder)
    check_structures(settings.structures, plan.tables)
    done = done_chunks(settings, checkpoint, files, plan.tables.features.key)
    calibration = calibrated(checkpoint, plan)
    count = len(calibration.energies)
    if settings.alpha < 1 / (count + 1):
        raise InputError(
            f"--alpha {settings.alpha:g}: with {count} ID validation molecules the smallest "
            f"p-value is {1 / (count + 1):.4g}; choose at least that"
        )
    progress, totals = telemetry.Progress("scores", None), Totals()
    pool = tuned_pool(plan)
    graph = scoring_graph(checkpoint, plan, pool, calibration, settings, files, done)
    for counts in graph.iter_batches(batch_size=None, batch_format="pyarrow"):
        totals.add(counts)
        progress.advance(pc.sum(counts["rows"]).as_py())
    stages = stages_of(pool, progress.seconds, **totals.of_stages())
    found = write_extremes(settings.output_dir, settings.top)
    if found.rows == 0:
        raise InputError(f"{settings.data_file}: the file has no rows")
    warn_if_many(found.reasons, found.rows, settings.data_file)
    repeated = repeated_ids(settings.output_dir, found.rows, settings.chunk_size)
    summary = {
        "dataset": settings.dataset or settings.data_file,
        "checkpoint": settings.checkpoint,
        **{name: checkpoint.encoder[name] for name in ("encoder", "weights")},
        "reading": notes,
        "rows_in": found.rows,
        "scored": found.scored,
        "rejected": found.rejected,
        "ood": found.ood,
        "structures": {} if plan.tables.conformers is None else structure_counts(found.structures),
        "alpha": settings.alpha,
        "energy_threshold": calibration.threshold(settings.alpha),
        "calibration_molecules": count,
        "repeated_ids": repeated._asdict(),
        "rows_of_this_run": totals.sums["rows"],
        "fragments": settings.fragments,
        "fragments_removed": totals.sums["fragments_removed"],
        "encoded": totals.sums["encoded"],
        "seconds": progress.seconds,
        "molecules_per_second": progress.rate,
        "stages": stages.summary(),
        "peak_gpu_memory_gb": float(totals.peaks["gpu_gb"]),
        "peak_resident_memory_gb": float(totals.peaks["resident_gb"]),
        "driver_peak_resident_memory_gb": telemetry.peak_resident_memory_gb(),
    }
    write_atomically(f"{settings.output_dir}/run_summary.json", json_bytes(summary))
    return summary


def calibrated(checkpoint: Checkpoint, plan: EncodingPlan) -> Calibration:
    """Energies of the ID validation molecules, from the store's features or encoded now."""
    molecules = checkpoint.molecules
    if "smiles" not in molecules.column_names:
        raise InputError(
            "the checkpoint does not hold its validation molecules' SMILES, by which scores are "
            "calibrated; train again with this version"
        )
    validation = molecules.filter(pc.equal(molecules["role"], "id_val"))
    encoded = encode(validation, plan)
    index = encoded.features.index()
    keys = [key for key in validation["key"].to_pylist() if key in index]
    if not keys:
        raise InputError("none of the checkpoint's ID validation molecules can be encoded")
    features = encoded.features.read_features(keys, index)
    return Calibration(np.sort(energies_of(checkpoint.head, features).astype(np.float64)))
