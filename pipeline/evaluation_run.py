"""The main job's last call: evaluate a checkpoint on its own or on another test set."""

from __future__ import annotations

import logging
import time
from dataclasses import fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline import telemetry
from pipeline.checkpoint import Checkpoint, json_bytes, load_checkpoint
from pipeline.config import EvaluateSettings, TrainSettings
from pipeline.errors import InputError
from pipeline.evaluation import energies_of, evaluate
from pipeline.experiment import check_inputs, encode_molecules, require_roles, write_rejected
from pipeline.sources import read_molecules
from pipeline.splits import assign_roles
from pipeline.store import absolute, write_atomically
from pipeline.tables import Tables
from pipeline.text import csv_bytes

log = logging.getLogger(__name__)

# Settings of an evaluation that, if given, replace the training run's.
_OVERRIDES = ("smiles_column", "id_column", "split_column", "test_size", "weights")


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
    _check_same_encoder(checkpoint, data)
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
    known = {f.name for f in fields(TrainSettings)}
    trained = TrainSettings(**{k: v for k, v in checkpoint.settings.items() if k in known})
    changes = {name: getattr(settings, name) for name in _OVERRIDES}
    changes = {name: value for name, value in changes.items() if value is not None}
    if settings.test_data_file:
        changes |= {"data_file": settings.test_data_file, "dataset": None}
        changes |= {"label_column": None, "domain_column": None}  # a test set needs neither
    if settings.test_size:
        changes["debug_dataset_size"] = None
    return replace(
        trained,
        cache_root=settings.cache_root,
        force_recompute_cache=settings.force_recompute_cache,
        retry_rejected=settings.retry_rejected,
        output_dir=settings.output_dir,
        device=settings.device,
        allow_overlap=settings.allow_overlap or trained.allow_overlap,
        finetuned=absolute(settings.checkpoint) if checkpoint.finetuned else trained.finetuned,
        **changes,
    )


def _check_same_encoder(checkpoint: Checkpoint, data: TrainSettings) -> None:
    now, then = dict(Tables.of(data).identity), dict(checkpoint.encoder)
    structure_now, structure_then = now.pop("conformers", None), then.pop("conformers", None)
    now.pop("weights"), then.pop("weights")  # a file's name; its SHA-256 is what counts
    changed = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
    if changed:
        told = "; ".join(f"{k} was {then.get(k)!r}, is {now.get(k)!r}" for k in changed)
        mend = (
            "Pass --weights with the training run's file"
            if "weights_sha256" in changed
            else "Train again with jobs.train"
        )
        raise InputError(f"the head was trained on another encoder: {told}. {mend}")
    if structure_now != structure_then:
        log.warning(
            "conformers are made otherwise than for training: %s, was %s",
            structure_now, structure_then,
        )  # fmt: skip


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
