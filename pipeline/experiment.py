"""The main job in three calls: encode a data file, train a head on it, evaluate the head."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline import telemetry
from pipeline.checkpoint import Checkpoint, json_bytes, load_checkpoint
from pipeline.cluster import settled
from pipeline.config import (
    EncoderSettings,
    EncodeSettings,
    EvaluateSettings,
    TrainSettings,
    TuneSettings,
)
from pipeline.encode import EncodeResult, encode
from pipeline.errors import InputError
from pipeline.evaluation import energies_of, evaluate, predictions_csv
from pipeline.finetune_run import choose_trunk, prepare_finetuning
from pipeline.formats import check_source
from pipeline.sources import Molecules, read_molecules, with_ids
from pipeline.splits import ROLES, assign_roles
from pipeline.store import absolute, parquet_bytes, write_atomically
from pipeline.tables import Tables
from pipeline.training import TRAINING_ROLES, train
from pipeline.trunk import TrunkSpec

log = logging.getLogger(__name__)

# Settings of an evaluation that, if given, replace the training run's.
_OVERRIDES = ("smiles_column", "id_column", "split_column", "test_size", "weights")


@dataclass(frozen=True)
class Encoded:
    """Molecules that have features, and the rows that could not get there.

    Attributes
    ----------
    molecules : rows with features: `id`, `key`, `smiles`, ..., and `role` if roles were asked.
    rejected : `id`, `smiles`, `stage`, `reason`.
    result : what encoding did.
    """

    molecules: pa.Table
    rejected: pa.Table
    result: EncodeResult


def run_encoding(settings: EncodeSettings) -> dict[str, Any]:
    """Encode all rows of a data file; write molecules, rejected rows and a summary.

    Returns
    -------
    dict
        The content of run_summary.json. In the output folder lie also molecules.parquet (each
        id with its key in the store) and rejected.parquet.
    """
    check_inputs(settings)
    source = read_molecules(settings)
    encoded = _encode(source.molecules, source, settings)
    if encoded.molecules.num_rows + encoded.rejected.num_rows != source.rows:
        raise RuntimeError(
            f"{source.rows} rows went in, {encoded.molecules.num_rows} came out and "
            f"{encoded.rejected.num_rows} were rejected; this is a fault of MolSieve"
        )
    _write_rejected(encoded.rejected, settings.output_dir)
    write_atomically(f"{settings.output_dir}/molecules.parquet", parquet_bytes(encoded.molecules))
    summary = _summary(source, encoded, settings)
    write_atomically(f"{settings.output_dir}/run_summary.json", json_bytes(summary))
    return summary


def run_training(settings: TrainSettings) -> dict[str, Any]:
    """Encode a split file's sample, train the head on it, write the checkpoint.

    Returns
    -------
    dict
        The content of training_stats.json.
    """
    check_inputs(settings)
    settings = replace(settings, precision=settled(settings).precision)  # for the checkpoint
    finetuning = prepare_finetuning(settings) if settings.finetune_encoder else None
    source = read_molecules(settings)
    # The test molecules' features are the base encoder's, of no use to a finetuned one.
    roles = tuple(ROLES) if finetuning is None else TRAINING_ROLES
    sample = assign_roles(source.molecules, settings, settings.data_file, roles)
    trunk = finetuning and choose_trunk(finetuning, sample["smiles"], settings)
    encoded = _encode(sample, source, settings, trunk)
    _write_rejected(encoded.rejected, settings.output_dir)
    _require_roles(encoded, TRAINING_ROLES, settings.data_file)
    summary = _summary(source, encoded, settings)
    write_atomically(f"{settings.output_dir}/run_summary.json", json_bytes(summary))
    return train(encoded.molecules, encoded.result, settings, finetuning)


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
    encoded = _encode(tests, source, data)
    _require_roles(encoded, ("id_test", "ood_test"), data.data_file, least=2)

    telemetry.reset_peak_memory()
    features = encoded.result.features.read_features(encoded.molecules["key"].to_pylist())
    use_gpu = settings.device != "cpu" and torch.cuda.is_available()
    energies = energies_of(
        checkpoint.head,
        features,
        batch_size=settings.eval_batch_size,
        device="cuda" if use_gpu else "cpu",
    )
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
    }  # fmt: skip
    _write_rejected(encoded.rejected, settings.output_dir, "test_rejected")
    write_atomically(f"{settings.output_dir}/ood_evaluation_results.json", json_bytes(results))
    rows = len(energies)
    write_atomically(
        f"{settings.output_dir}/detailed_predictions.csv",
        predictions_csv(
            {
                "id": encoded.molecules["id"].to_pylist(),
                "smiles": encoded.molecules["smiles"].to_pylist(),
                "is_ood": is_ood.astype(int).tolist(),
                "energy": energies.tolist(),
                "domain": encoded.molecules["domain"].to_pylist(),
                **{name: [value] * rows for name, value in label.items()},
            }
        ),
    )
    return results


def check_inputs(settings: EncodeSettings | TrainSettings | TuneSettings) -> None:
    """Tell a missing file, bad weights or a folder that cannot be before any work is done.

    Raises
    ------
    InputError
        That names the flag to mend.
    """
    check_source(settings)
    for flag in ("cache_root", "output_dir"):
        folder = getattr(settings, flag, None)
        if folder is None:
            continue
        try:
            fs, path = fsspec.url_to_fs(folder)
            fs.makedirs(path, exist_ok=True)
        except Exception as error:  # each filesystem has errors of its own
            raise InputError(f"--{flag} {folder}: cannot be written to: {error}") from None
    Tables.of(settings)


def _encode(
    molecules: pa.Table,
    source: Molecules,
    settings: EncoderSettings,
    trunk: TrunkSpec | None = None,
) -> Encoded:
    result = encode(molecules, settings, trunk)
    refused = pc.is_in(molecules["key"], result.rejected["key"].combine_chunks())
    rejected = pa.concat_tables([source.rejected, with_ids(result.rejected, molecules)])
    return Encoded(molecules.filter(pc.invert(refused)), rejected, result)


def _summary(source: Molecules, encoded: Encoded, settings: EncodeSettings | TrainSettings) -> dict:
    result = encoded.result
    roles = (
        Counter(encoded.molecules["role"].to_pylist())
        if "role" in encoded.molecules.column_names
        else {}
    )
    return {
        **result.label,
        "dataset": settings.dataset or settings.data_file,
        "rows_in": source.rows,
        "molecules_out": encoded.molecules.num_rows,
        "rejected": encoded.rejected.num_rows,
        "rejected_by_stage": dict(Counter(encoded.rejected["stage"].to_pylist())),
        "not_sampled": source.rows - encoded.molecules.num_rows - encoded.rejected.num_rows,
        "roles": roles,
        "found_in_store": result.known,
        "encoded": result.encoded,
        "encoding_time_seconds": result.seconds,
        "encoding_molecules_per_second": result.rate,
        "peak_gpu_memory_encoding_gb": result.peak_gpu_memory_gb,
        "peak_resident_memory_encoding_gb": result.peak_resident_memory_gb,
        "padding_share": result.padding_share,
        "features": result.features.uri,
        "encoder_identity": result.identity,
    }


def _write_rejected(rejected: pa.Table, folder: str, name: str = "rejected") -> None:
    write_atomically(f"{folder}/{name}.parquet", parquet_bytes(rejected))
    if rejected.num_rows:
        log.info("%s rows rejected; see %s/%s.parquet", f"{rejected.num_rows:,}", folder, name)


def _require_roles(encoded: Encoded, roles: tuple[str, ...], source: str, least: int = 1) -> None:
    left = Counter(encoded.molecules["role"].to_pylist())
    for role in roles:
        if left[role] < least:
            raise InputError(
                f"{source}: {role} has {left[role]} molecules with features, needs at least {least}"
            )


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
