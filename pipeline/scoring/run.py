"""What jobs.score calls: a checkpoint and a library of any size to scores.

Of a long library the driver sees counts alone; a short one it scores itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.conformers.structure import structure_counts
from pipeline.encoding.cost.tuning import tuned_pool
from pipeline.encoding.stored_features import encode, stages_of
from pipeline.encoding.views import Plans, check_encoders, heaviest, plan_views
from pipeline.evaluation.calibration import Calibration, held_out
from pipeline.molecules.folders import data_files
from pipeline.molecules.formats import check_files
from pipeline.molecules.rejected import warn_if_many
from pipeline.molecules.sources import FIRST_ROWS, check_first_rows
from pipeline.runtime import telemetry
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, write_atomically
from pipeline.scoring.graph import scored_here, scoring_graph, starts_here, with_store_as_it_is
from pipeline.scoring.levels import Levels
from pipeline.scoring.output.extremes import write_extremes
from pipeline.scoring.output.output_folder import done_chunks
from pipeline.scoring.output.repeated_ids import repeated_ids
from pipeline.scoring.settings import ScoreSettings
from pipeline.scoring.totals import Totals
from pipeline.scoring.verdicts import Judge
from pipeline.training.checkpoints.checkpoint import Checkpoint, load_checkpoint
from pipeline.training.checkpoints.checkpoint_encoder import (
    check_same_encoder,
    described_from_store,
    settings_of,
)
from pipeline.trust.in_checkpoint import read_errors, read_predictions

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
        If a file is missing or unreadable, the encoder is not the one that the detector was
        trained on, alpha is below any p-value, or the output folder holds other scores.
    """
    checkpoint = load_checkpoint(settings.checkpoint)
    encoder = settings_of(
        checkpoint, settings, data_file=settings.data_file,
        conformer_seconds=settings.conformer_seconds, conformer_gb=settings.conformer_gb,
        fragments=settings.fragments,
    )  # fmt: skip
    settings = replace(settings, fragments=encoder.fragments)
    encoder = replace(  # None too: the training run's machine, and files, may have been others
        encoder, encoding_batch_size=settings.encoding_batch_size,
        encoder_workers=settings.encoder_workers, sequence_column=settings.sequence_column,
    )  # fmt: skip
    views = encoder.view_names
    notes = check_files(settings)
    check_same_encoder(checkpoint, encoder)
    if settings.structures != encoder.structures:
        log.warning(
            "--structures %s, but the detector was trained with --structures %s: features of other "
            "coordinates differ", settings.structures, encoder.structures,
        )  # fmt: skip
    files = data_files(settings.data_file, settings.sequence_column)
    first = check_first_rows(files[0], settings)
    check_encoders(replace(encoder, structures=settings.structures), views)
    plans = plan_views(encoder, views)
    judge = judge_of(checkpoint, plans, settings)
    errors = judge.errors and judge.errors.sha256
    done = done_chunks(settings, checkpoint, files, features_of(plans), judge.levels, errors)
    progress, totals = telemetry.Progress("scores", None), Totals()
    main = plans[heaviest(views)]
    pool = tuned_pool(main)
    now = with_store_as_it_is(plans, settings)
    whole = len(files) == 1 and (first is None or first.num_rows < FIRST_ROWS)
    started = starts_here(first, whole, now, pool)
    work = now, pool, judge, settings, files
    for counts in _counts(totals, started, whole, done, *work):
        totals.add(counts)
        progress.advance(pc.sum(counts["rows"]).as_py())
    pool = pool._replace(actors=pool.actors if totals.by_actors else 0)
    stages = stages_of(pool, progress.seconds, **totals.of_stages())
    found = write_extremes(settings.output_dir, settings.top, checkpoint.kind)
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
        "in_training": found.in_training,
        "structures": {} if main.tables.conformers is None else structure_counts(found.structures),
        "detector": checkpoint.name,
        "views": list(views),
        "alpha": settings.alpha,
        "energy_threshold": judge.calibration.threshold(settings.alpha),
        "calibration_molecules": len(judge.calibration.energies),
        "calibrated_by": judge.calibrated_by,
        "interval_alpha": settings.interval_alpha if judge.errors else None,
        "interval_half_width": judge.levels.width,
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


def _counts(
    totals: Totals, started: bool, whole: bool, done: frozenset[str], *work: Any
) -> Iterator[pa.Table]:
    """What comes of the chunks: first of this process's, if it starts, then of the actors'."""
    left: frozenset[str] | None = done
    if started:
        left = yield from scored_here(*work, done, whole)
    if left is not None:
        totals.by_actors = True
        graph = scoring_graph(*work, left)
        yield from graph.iter_batches(batch_size=None, batch_format="pyarrow")


def judge_of(checkpoint: Checkpoint, plans: Plans, settings: ScoreSettings) -> Judge:
    """What verdicts are made from: the detector calibrated, and the error model if there is one.

    Raises
    ------
    InputError
        If alpha is below any p-value that the calibration molecules allow, or an interval's level
        is asked for without an error model.
    """
    calibration, by = calibrated(checkpoint, plans)
    cross = checkpoint.cross and calibrated(checkpoint.cross, plans)[0]
    count = len(calibration.energies)
    if settings.alpha < 1 / (count + 1):
        raise InputError(
            f"--alpha {settings.alpha:g}: with {count} ID calibration molecules the smallest "
            f"p-value is {1 / (count + 1):.4g}; choose at least that"
        )
    errors = read_errors(settings.checkpoint, settings.predictions is not None)
    levels = Levels(settings.alpha)
    if errors is not None:
        errors = replace(errors, predictions=_own_predictions(checkpoint, settings))
        width = errors.model.quantile(settings.interval_alpha)
        levels = Levels(settings.alpha, width, (0.0, 1.0) if errors.binary else None)
    return Judge(checkpoint, calibration, cross, errors, levels, by)


def calibrated(checkpoint: Checkpoint, plans: Plans) -> tuple[Calibration, str]:
    """Scores of ID molecules that training did not fit by, and which these are; see `held_out`.

    Their features come from the store, or are encoded now.
    """
    molecules, role = held_out(checkpoint)
    if role == "id_val":
        log.warning(
            "p-values are calibrated by the molecules that training chose its best epoch by, for "
            "want of others: they are a little too small"
        )
    for plan in plans.values():
        index = encode(molecules, plan).features.index()
        molecules = molecules.filter(pa.array([k in index for k in molecules["key"].to_pylist()]))
    if molecules.num_rows == 0:
        raise InputError("none of the checkpoint's ID calibration molecules can be encoded")
    scores = checkpoint.scores(described_from_store(checkpoint, molecules, plans))
    return Calibration(np.sort(scores)), role


def _own_predictions(checkpoint: Checkpoint, settings: ScoreSettings) -> pa.Table | None:
    if settings.predictions is None:
        return None
    how = settings_of(checkpoint, settings, smiles_column=settings.smiles_column)
    how = replace(how, sequence_column=settings.sequence_column)
    return read_predictions(how, settings.predictions)


def features_of(plans: Plans) -> str:
    """The key of all views' features together; a single encoder's own."""
    if len(plans) == 1:
        return next(iter(plans.values())).tables.features.key
    return "+".join(plan.tables.features.key for plan in plans.values())
