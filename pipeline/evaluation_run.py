"""The main job's last call: evaluate a checkpoint on its own or on another test set."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline import telemetry
from pipeline.checkpoint import Checkpoint, json_bytes, load_checkpoint
from pipeline.checkpoint_encoder import check_same_encoder, settings_of
from pipeline.config import EvaluateSettings, TrainSettings
from pipeline.errors import InputError
from pipeline.evaluation import energies_of, evaluate
from pipeline.experiment import check_inputs, encode_molecules, require_roles, write_rejected
from pipeline.files import write_atomically
from pipeline.sources import read_molecules
from pipeline.splits import assign_roles
from pipeline.text import csv_bytes

log = logging.getLogger(__name__)

# Settings of an evaluation that, if given, replace the training run's.
_OVERRIDES = ("smiles_column", "id_column", "split_column", "test_size")


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
    check_inputs(data)
    check_same_encoder(checkpoint, data)
    source = read_molecules(data)
    tests = assign_roles(source.molecules, data, data.data_file, ("id_test", "ood_test"))
    overlap = _check_unseen(tests, checkpoint, settings, data.data_file)
    encoded = encode_molecules(tests, source, data)
    require_roles(encoded, ("id_test", "ood_test"), data.data_file, least=2)

    telemetry.reset_peak_memory()
    started = time.perf_counter()
    features = encoded.result.features.read_features(encoded.molecules["key"].to_pylist())
    use_gpu = settings.device != "cpu" and torch.cuda.is_available()
    energies = energies_of(
        checkpoint.head,
        features,
        batch_size=settings.eval_batch_size,
        device="cuda" if use_gpu else "cpu",
    )
    seconds = time.perf_counter() - started
    is_ood = pc.equal(encoded.molecules["role"], "ood_test").to_numpy(zero_copy_only=False)
    label = encoded.result.label
    results = {
        **label,
        "dataset": data.dataset or data.data_file,
        "checkpoint": settings.checkpoint,
        **evaluate(
            energies[~is_ood], energies[is_ood],
            bootstrap_samples=settings.bootstrap_samples, seed=settings.seed,
        ),
        "test_molecules_seen_in_training": overlap,
        "rejected": encoded.rejected.num_rows,
        "encoding_time_seconds": encoded.result.seconds,
        "encoding_molecules_per_second": encoded.result.rate,
        "peak_gpu_memory_encoding_gb": encoded.result.peak_gpu_memory_gb,
        "eval_time_seconds": seconds,
    }  # fmt: skip
    write_rejected(encoded.rejected, settings.output_dir, "test_rejected")
    write_atomically(f"{settings.output_dir}/ood_evaluation_results.json", json_bytes(results))
    ids, smiles, domains = (
        encoded.molecules[name].to_pylist() for name in ("id", "smiles", "domain")
    )
    truth = is_ood.astype(int).tolist()
    rows = zip(ids, smiles, truth, energies.tolist(), domains, strict=True)
    write_atomically(
        f"{settings.output_dir}/detailed_predictions.csv",
        csv_bytes(
            ["id", "smiles", "is_ood", "energy", "domain", *label],
            ([*row, *label.values()] for row in rows),
        ),
    )
    return results


def _test_settings(checkpoint: Checkpoint, settings: EvaluateSettings) -> TrainSettings:
    """The training run's settings, with what the evaluation changes."""
    changes = {name: getattr(settings, name) for name in _OVERRIDES}
    data = settings_of(checkpoint, settings, **changes)
    if settings.test_data_file:  # a test set needs neither labels nor domains
        data = replace(
            data,
            data_file=settings.test_data_file, dataset=None, label_column=None, domain_column=None,
        )  # fmt: skip
    if settings.test_size:
        data = replace(data, debug_dataset_size=None)
    return replace(data, allow_overlap=settings.allow_overlap or data.allow_overlap)


def _check_unseen(
    tests: pa.Table, checkpoint: Checkpoint, settings: EvaluateSettings, source: str
) -> int:
    seen = tests.filter(pc.is_in(tests["key"], checkpoint.molecules["key"].combine_chunks()))
    if seen.num_rows == 0:
        return 0
    shown = ", ".join(seen["smiles"].slice(0, 3).to_pylist())
    message = f"{source}: {seen.num_rows} test molecules were seen in training: {shown}"
    if not settings.allow_overlap:
        raise InputError(f"{message}. Remove them, or pass --allow_overlap to go on")
    log.warning("%s", message)
    return seen.num_rows
