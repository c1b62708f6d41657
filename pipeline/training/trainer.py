"""Training a head on stored features: starts Ray Train, then writes what came of it."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
from ray.train.torch import TorchTrainer
from torch import Tensor

from pipeline.encoders.unimol.finetuning.finetuned import FinetunedEncoder, finetuned_of
from pipeline.encoding.stored_features import EncodeResult
from pipeline.runtime.cluster import cluster_cores
from pipeline.runtime.files import absolute, json_bytes, portable, remove, write_atomically
from pipeline.runtime.ray_train import fit, read_state, run_name, threads_of, torch_trainer
from pipeline.runtime.text import records_csv
from pipeline.store.keyed_table import KeyedTable
from pipeline.training.batches import stream_of
from pipeline.training.checkpoint import save_checkpoint
from pipeline.training.finetuning.preparation import FinetuneRun
from pipeline.training.loop import training_loop
from pipeline.training.settings import TrainSettings
from pipeline.training.worker_setup import FinetuneJob, TrainingJob

log = logging.getLogger(__name__)

CHECKPOINT_FOLDER = "checkpoint"
TRAINING_ROLES = ("id_train", "ood_train", "id_val", "ood_val")
OUT_OF_MEMORY_ADVICE = (
    "lower --batch_size (--gradient_accumulation_steps makes up for it), pass "
    "--gradient_checkpointing, or set --resident_gb lower"
)
# Settings that say where and how fast, not what: a run killed under one value of these may
# be resumed under another.
NOT_IDENTITY = (
    "output_dir", "cache_root", "num_workers", "device", "checkpoint_every", "encoder_workers",
    "encoding_batch_size", "force_recompute_cache", "retry_rejected", "resident_gb",
    "conformer_seconds", "conformer_gb", "dataset", "weights", "trunk_cache", "trunk_gb",
    "gradient_checkpointing",
)  # fmt: skip


def training_name(settings: TrainSettings, *others: Any) -> str:
    """A name that only runs with the same outcome share.

    Parameters
    ----------
    others : JSON-ready; the encoder and the molecules.
    """
    return run_name(settings, NOT_IDENTITY, *others)


def train(
    molecules: pa.Table,
    encoded: EncodeResult,
    settings: TrainSettings,
    device: str,
    finetuning: FinetuneRun | None = None,
    share: float = 1.0,
) -> dict[str, Any]:
    """Train the energy head and write the checkpoint, the statistics and the dynamics.

    A run that was killed continues from its last Ray Train checkpoint when it is started
    again with the same settings and molecules.

    Parameters
    ----------
    molecules : `id`, `key`, `role`; every key has features.
    encoded : of `pipeline.encoding.stored_features.encode`, with the trunk if that is kept.
    settings : with the encoder's precision decided.
    device : "cpu" or "cuda".
    finetuning : what is trained of the encoder; None to train the head alone.
    share : part of the cluster's cores that the training may take.

    Returns
    -------
    dict
        The content of training_stats.json, written beside training_dynamics.csv and the
        folder `checkpoint` in the output folder.
    """
    settings = settings.sized()
    seen = molecules.filter(pa.compute.is_in(molecules["role"], pa.array(TRAINING_ROLES)))
    keys = {
        role: seen.filter(pa.compute.equal(seen["role"], role))["key"].to_pylist()
        for role in TRAINING_ROLES
    }
    use_gpu = device == "cuda"
    storage = f"{absolute(settings.output_dir)}/.ray_train"
    name = training_name(settings, encoded.features.key, keys)
    job = _job(settings, encoded, keys, finetuning, share)
    result = fit(_trainer(job, use_gpu, storage, name, share), OUT_OF_MEMORY_ADVICE)
    outcome = result.return_value
    state = read_state(result.checkpoint)

    label = encoded.label
    times = [epoch["epoch_time_seconds"] for epoch in outcome["history"]]
    stats = {
        **label,
        "dataset": settings.dataset or settings.data_file,
        "seed": settings.seed,
        "loss": settings.loss,
        "epochs": len(times),
        "resumed_after_epoch": outcome["resumed_after_epoch"],
        "best_epoch": outcome["best_epoch"],
        "best_val_auroc": outcome["best_val_auroc"],
        "molecules": {role: len(role_keys) for role, role_keys in keys.items()},
        "num_workers": settings.num_workers,
        "device": "cuda" if use_gpu else "cpu",
        "features_resident": outcome["resident"],
        "trained_parameters": outcome["trained_parameters"],
        **_finetuning_stats(finetuning, job),
        "encoding_time_seconds": encoded.seconds,
        "train_time_seconds": outcome["train_time_seconds"],
        "eval_time_seconds": outcome["eval_time_seconds"],
        "avg_epoch_time_seconds": sum(times) / len(times),
        "encoding_molecules_per_second": encoded.rate,
        "encoded_molecules": encoded.encoded,
        **{
            f"peak_{kind}_memory_{phase}_gb": (
                getattr(encoded, f"peak_{kind}_memory_gb")
                if phase == "encoding"
                else outcome[f"peak_{kind}_memory_{phase}_gb"]
            )
            for kind in ("gpu", "resident")
            for phase in ("encoding", "train", "eval")
        },
    }
    head, finetuned = _trained(state["best"], settings, finetuning)
    identity = encoded.identity if finetuned is None else finetuned.identity_over(encoded.identity)
    config = {
        "encoder": identity,
        "features_key": KeyedTable("", "features", identity).key,
        "head": {
            "width": outcome["feature_width"],
            "hidden_dim": settings.hidden_dim,
            "dropout": settings.dropout,
        },
        "settings": asdict(settings),
    }
    folder = f"{settings.output_dir}/{CHECKPOINT_FOLDER}"
    metrics = {**label, "best_val_auroc": outcome["best_val_auroc"], **outcome["history"][-1]}
    columns = ["id", "key", "smiles", "role"]
    save_checkpoint(folder, head, config, metrics, seen.select(columns), finetuned)
    write_atomically(f"{settings.output_dir}/training_stats.json", json_bytes(stats))
    dynamics = records_csv(outcome["history"], label)
    write_atomically(f"{settings.output_dir}/training_dynamics.csv", dynamics)
    remove(f"{storage}/{name}")  # a new start shall train again
    if outcome["resumed_after_epoch"]:
        log.info("resumed after epoch %s", outcome["resumed_after_epoch"])
    log.info(
        "trained %s epochs in %.1f s; best validation AUROC %.4f at epoch %s",
        len(times), outcome["train_time_seconds"], outcome["best_val_auroc"],
        outcome["best_epoch"],
    )  # fmt: skip
    return stats


def _job(
    settings: TrainSettings,
    encoded: EncodeResult,
    keys: dict[str, list[str]],
    finetuning: FinetuneRun | None,
    share: float,
) -> TrainingJob:
    threads = threads_of(settings.num_workers, share)
    job = TrainingJob(settings, encoded.features, keys, threads)
    if finetuning is None:
        return job
    if finetuning.weights.path is not None:  # workers need not look for it
        found = replace(job.settings, weights=str(finetuning.weights.path))
        job = replace(job, settings=found)
    return replace(job, finetune=FinetuneJob(finetuning.plan, encoded.trunk, encoded.conformers))


def _finetuning_stats(finetuning: FinetuneRun | None, job: TrainingJob) -> dict[str, Any]:
    if finetuning is None:
        return {}
    return {
        "cut": finetuning.plan.cut,
        "encoder_parameters_trained": finetuning.trained,
        "encoder_parameters_frozen": finetuning.frozen,
        "trunk_kept": job.finetune.trunk is not None,
    }


def _trained(
    best: dict[str, Tensor], settings: TrainSettings, finetuning: FinetuneRun | None
) -> tuple[dict[str, Tensor], FinetunedEncoder | None]:
    """The head's tensors, and the encoder's if it was finetuned."""
    if finetuning is None:
        return best, None
    head, encoder = (
        {name.removeprefix(prefix): tensor.contiguous() for name, tensor in best.items()
         if name.startswith(prefix)}
        for prefix in ("head.", "top.model.")
    )  # fmt: skip
    made_of = {
        "adapters": finetuning.plan.adapters,
        "base_weights": portable(settings.weights),
        "base_sha256": finetuning.weights.sha256,
        "token_order": settings.token_order,
    }
    return head, finetuned_of(encoder, **made_of)


def _trainer(
    job: TrainingJob, use_gpu: bool, storage: str, name: str, share: float
) -> TorchTrainer:
    settings, cores = job.settings, share * cluster_cores()
    datasets, table = {}, job.streamed
    if table is not None:
        index = table.index()
        datasets = {
            role: stream_of(table, index, job.keys[role]) for role in ("id_train", "ood_train")
        }
    return torch_trainer(
        training_loop,
        {"job": job},
        workers=settings.num_workers,
        use_gpu=use_gpu,
        cores=cores,
        storage=storage,
        name=name,
        datasets=datasets,
    )
