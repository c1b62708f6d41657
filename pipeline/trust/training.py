"""What jobs.train calls: a training, its shortcut audit, and with labels its error model."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.encoding.views import plan_views
from pipeline.evaluation.audit import WITHOUT_OOD, audit
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, write_atomically
from pipeline.training.checkpoints.checkpoint import Checkpoint, load_checkpoint
from pipeline.training.checkpoints.checkpoint_encoder import described_from_store
from pipeline.training.outputs import CHECKPOINT_FOLDER
from pipeline.training.run import run_training
from pipeline.training.settings import TrainSettings
from pipeline.training.synthetic_ood import SYNTHETIC
from pipeline.trust.in_checkpoint import fit_errors, read_predictions

log = logging.getLogger(__name__)

RESAMPLES, LEAST_TESTED = 1000, 2
# Labels over more than three decades, none below 0, are likely concentrations.
DECADES = 1000


def train_and_audit(settings: TrainSettings) -> dict[str, Any]:
    """Train a detector, see what needs no training to do as well, fit the error model.

    The latter is fitted with --id_file and --label_column.

    Returns
    -------
    dict
        The content of training_stats.json: that of `run_training`; `audit`, on the validation
        molecules; and with an error model `errors`, see `fit_errors`.
    """
    labelled = settings.id_file is not None and settings.label_column is not None
    if settings.predictions is not None and not labelled:
        raise InputError("--predictions does nothing without --id_file and --label_column")
    predictions = read_predictions(settings) if labelled else None
    stats = run_training(settings)
    checkpoint = load_checkpoint(f"{settings.output_dir}/{CHECKPOINT_FOLDER}")
    without = settings.ood == SYNTHETIC
    stats["audit"] = {"not_made": WITHOUT_OOD} if without else _audit(checkpoint, settings)
    if labelled:
        warn_of_concentrations(checkpoint.molecules["label"])
        stats["errors"] = fit_errors(checkpoint, settings, predictions)
    write_atomically(f"{settings.output_dir}/training_stats.json", json_bytes(stats))
    return stats


def warn_of_concentrations(labels: pa.ChunkedArray) -> None:
    """Say so where labels look like concentrations, whose errors are of no use beside each other.

    Parameters
    ----------
    labels : numbers; null or NaN where there is none.
    """
    values = labels.drop_null().to_numpy()
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > DECADES * values.min():
        log.warning(
            "--label_column: labels go from %.3g to %.3g, as concentrations do; take their "
            "negative logarithm (pIC50, pKi), or the largest ones decide all",
            values.min(),
            values.max(),
        )


def _audit(checkpoint: Checkpoint, settings: TrainSettings) -> dict[str, Any]:
    """The shortcut audit on validation molecules."""
    tests = checkpoint.of_role("id_val", "ood_val")
    is_ood = np.array(tests["role"].to_pylist()) == "ood_val"
    if min(is_ood.sum(), (~is_ood).sum()) < LEAST_TESTED:
        return {"not_made": f"validation has fewer than {LEAST_TESTED} molecules of a kind"}
    if checkpoint.finetuned:
        return {"not_made": "the encoder was finetuned: jobs.evaluate makes it on test molecules"}
    plans = plan_views(settings, settings.view_names)
    scores = checkpoint.scores(described_from_store(checkpoint, tests, plans))
    made = audit(
        checkpoint.of_role("id_train", "ood_train"), tests["smiles"].to_pylist(), is_ood, scores,
        bootstrap_samples=RESAMPLES, seed=settings.seed, kind=checkpoint.kind,
    )  # fmt: skip
    if made.get("warning"):
        log.warning("%s", made["warning"])
    return made
