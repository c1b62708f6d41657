"""What jobs.evaluate calls: a checkpoint to metrics on its own or on another test set."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.encoding.views import check_views, encode_views, open_views
from pipeline.evaluation.audit import audit
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.p_values import p_values_of
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.molecules.kinds import named_for
from pipeline.molecules.rejected import write_rejected
from pipeline.molecules.roles import assign_roles
from pipeline.runtime import telemetry
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, result_or_error, write_atomically
from pipeline.runtime.text import records_csv
from pipeline.training.checkpoints.checkpoint import Checkpoint, load_checkpoint
from pipeline.training.checkpoints.checkpoint_encoder import check_same_encoder, settings_of
from pipeline.training.run import require_roles, run_training, run_trainings
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

# Settings of an evaluation that, if given, replace the training run's.
_OVERRIDES = (
    "smiles_column",
    "sequence_column",
    "id_column",
    "split_column",
    "fragments",
    "test_size",
)


def run_evaluation(settings: EvaluateSettings) -> dict[str, Any]:
    """Evaluate a checkpoint on the test splits of its own or of another data file.

    Returns
    -------
    dict
        The content of ood_evaluation_results.json, written beside detailed_predictions.csv.

    Raises
    ------
    InputError
        If the encoder is not the one the head was trained on, a test split is empty, or a
        test molecule was in training.
    """
    checkpoint = load_checkpoint(settings.checkpoint)
    data = _test_settings(checkpoint, settings)
    check_views(data, data.view_names)
    check_same_encoder(checkpoint, data)
    plans, source = open_views(data, data.view_names)
    tests = assign_roles(source.molecules, data, data.data_file, ("id_test", "ood_test"))
    overlap = _check_unseen(tests, checkpoint, settings, data.data_file)
    encoded = encode_views(tests, source, plans)
    require_roles(encoded, ("id_test", "ood_test"), data.data_file, least=2)

    telemetry.reset_peak_memory()
    started = time.perf_counter()
    use_gpu = settings.device != "cpu" and torch.cuda.is_available()
    energies = checkpoint.scores(
        checkpoint.references.described(encoded.molecules, encoded),
        "cuda" if use_gpu else "cpu",
        settings.eval_batch_size,
    )
    seconds = time.perf_counter() - started
    is_ood = pc.equal(encoded.molecules["role"], "ood_test").to_numpy(zero_copy_only=False)
    p_told, p_values = p_values_of(checkpoint, encoded, is_ood, energies)
    label, bootstrap = encoded.result.label, settings.bootstrap_samples
    results = {
        **label,
        "dataset": data.dataset or data.data_file,
        "checkpoint": settings.checkpoint,
        "detector": checkpoint.name,
        **evaluate(
            energies[~is_ood], energies[is_ood], bootstrap_samples=bootstrap, seed=settings.seed
        ),
        "audit": _audit(checkpoint, encoded.molecules, is_ood, energies, settings),
        "p_values": p_told,
        "test_molecules_seen_in_training": overlap,
        "rejected": encoded.rejected.num_rows,
        "structures": encoded.structures,
        "encoding_time_seconds": encoded.result.seconds,
        "encoding_molecules_per_second": encoded.result.rate,
        "peak_gpu_memory_encoding_gb": encoded.result.peak_gpu_memory_gb,
        "eval_time_seconds": seconds,
    }  # fmt: skip
    kind = checkpoint.kind
    write_rejected(encoded.rejected, settings.output_dir, "test_rejected", kind)
    write_atomically(f"{settings.output_dir}/ood_evaluation_results.json", json_bytes(results))
    molecules = encoded.molecules
    predictions = {
        **{name: molecules[name] for name in ("id", "smiles")},
        "is_ood": is_ood.astype(int),
        "energy": energies,
        **({} if p_values is None else {"p_value": p_values}),
        "domain": molecules["domain"],
        "structure": molecules["structure"],
    }
    content = records_csv(named_for(pa.table(predictions), kind).to_pylist(), label)
    write_atomically(f"{settings.output_dir}/detailed_predictions.csv", content)
    return results


def _test_settings(checkpoint: Checkpoint, settings: EvaluateSettings) -> TrainSettings:
    """The training run's settings, with what the evaluation changes."""
    changes = {name: getattr(settings, name) for name in _OVERRIDES}
    data = settings_of(checkpoint, settings, **changes)
    if data.data_file is None and not settings.test_data_file:
        raise InputError(
            "the detector was trained with --id_file, which has no test molecules; give a table "
            "with iid_test and ood_test as --test_data_file"
        )
    if settings.test_data_file:  # a test set needs neither labels nor domains
        data = replace(
            data,
            data_file=settings.test_data_file, dataset=None, label_column=None, domain_column=None,
        )  # fmt: skip
    if settings.test_size:
        data = replace(data, debug_dataset_size=None)
    return replace(data, allow_overlap=settings.allow_overlap or data.allow_overlap)


def _audit(
    checkpoint: Checkpoint,
    tests: pa.Table,
    is_ood: np.ndarray,
    energies: np.ndarray,
    settings: EvaluateSettings,
) -> dict[str, Any]:
    made = audit(
        checkpoint.molecules, tests["smiles"].to_pylist(), is_ood, energies,
        bootstrap_samples=settings.bootstrap_samples, seed=settings.seed, kind=checkpoint.kind,
    )  # fmt: skip
    if made.get("warning"):
        log.warning("%s", made["warning"])
    return made


def _check_unseen(
    tests: pa.Table, checkpoint: Checkpoint, settings: EvaluateSettings, source: str
) -> int:
    by = "smiles" if "smiles" in checkpoint.molecules.column_names else "key"
    seen = tests.filter(pc.is_in(tests[by], checkpoint.molecules[by].combine_chunks()))
    if seen.num_rows == 0:
        return 0
    shown = ", ".join(seen["smiles"].slice(0, 3).to_pylist())
    message = f"{source}: {seen.num_rows} test molecules were seen in training: {shown}"
    if not settings.allow_overlap:
        raise InputError(f"{message}. Remove them, or pass --allow_overlap to go on")
    log.warning("%s", message)
    return seen.num_rows


def train_and_evaluate(settings: TrainSettings, share: float = 1.0) -> dict[str, Any]:
    """Train on a split file and test on its test splits, in one output folder.

    Parameters
    ----------
    share : part of the cluster's cores that the training may take.

    Returns
    -------
    dict
        As `run_evaluation`.
    """
    run_training(settings, share)
    return _evaluate_own(settings)


def train_and_evaluate_together(
    settings: Sequence[TrainSettings], share: float, finished: Callable[[TrainSettings], None]
) -> list[dict[str, Any] | Exception]:
    """As `train_and_evaluate` for each of some heads, which train together.

    Parameters
    ----------
    finished : called for each as soon as it is evaluated.

    Returns
    -------
    list
        Of each the results, or why it failed.
    """

    def evaluated(settings: TrainSettings) -> dict[str, Any]:
        results = _evaluate_own(settings)
        finished(settings)
        return results

    return [
        stats if isinstance(stats, Exception) else result_or_error(evaluated, each)
        for each, stats in zip(settings, run_trainings(settings, share))
    ]


def _evaluate_own(settings: TrainSettings) -> dict[str, Any]:
    return run_evaluation(
        EvaluateSettings(
            checkpoint=f"{settings.output_dir}/checkpoint",
            cache_root=settings.cache_root,
            output_dir=settings.output_dir,
            device=settings.device,
            allow_overlap=settings.allow_overlap,
        )
    )
