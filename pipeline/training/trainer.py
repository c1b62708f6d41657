"""Training a head on stored features by Ray Train."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import safetensors.torch
from ray.train.torch import TorchTrainer
from torch import Tensor

from pipeline.detectors.feature_space import FeatureSpace
from pipeline.encoders.unimol.finetuning.finetuned import FinetunedEncoder, finetuned_of
from pipeline.encoding.stored_features import EncodeResult
from pipeline.encoding.views import EncodedViews
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute, portable
from pipeline.runtime.nodes.cluster import cluster_cores
from pipeline.runtime.train.ray_train import fit, read_state, run_name, threads_of, torch_trainer
from pipeline.store.keyed_table import KeyedTable
from pipeline.training.checkpoints.checkpoint import MODEL
from pipeline.training.features import TRAINING_ROLES, written_features
from pipeline.training.finetuning.preparation import FinetuneRun
from pipeline.training.settings import TrainSettings
from pipeline.training.synthetic_ood import SyntheticOod
from pipeline.training.trained import Trained
from pipeline.training.worker.loop import training_loop
from pipeline.training.worker.streams import stream_of
from pipeline.training.worker.worker_setup import FinetuneJob, TrainingJob

log = logging.getLogger(__name__)

OUT_OF_MEMORY_ADVICE = (
    "lower --batch_size (--gradient_accumulation_steps makes up for it), pass "
    "--gradient_checkpointing, or set --resident_gb lower"
)
# Settings that say where and how fast, not what: a run killed under one value of these may
# be resumed under another. What the weights are, the encoder's identity tells.
NOT_IDENTITY = (
    "output_dir", "cache_root", "num_workers", "device", "checkpoint_every", "encoder_workers",
    "encoding_batch_size", "force_recompute_cache", "retry_rejected", "resident_gb",
    "conformer_seconds", "conformer_gb", "dataset", "weights", "model_size", "trunk_cache",
    "trunk_gb", "gradient_checkpointing",
)  # fmt: skip


def training_name(settings: TrainSettings, *others: Any) -> str:
    """A name that only runs with the same outcome share.

    Parameters
    ----------
    others : JSON-ready; the encoder and the molecules.
    """
    return run_name(settings, NOT_IDENTITY, *others)


def train_head(
    molecules: pa.Table,
    encoded: EncodedViews,
    space: FeatureSpace,
    settings: TrainSettings,
    device: str,
    finetuning: FinetuneRun | None = None,
    share: float = 1.0,
    synthetic: SyntheticOod | None = None,
) -> Trained:
    """Train an energy head by Ray Train, on the views or with the encoder's last layers.

    A run that was killed continues from its last Ray Train checkpoint when it is started
    again with the same settings and molecules.

    Parameters
    ----------
    molecules : `id`, `key`, `role`; every key has features.
    encoded : with the trunk if that is kept.
    settings : with the encoder's precision decided.
    device : "cpu" or "cuda".
    finetuning : what is trained of the encoder; None to train the head alone.
    share : part of the cluster's cores that the training may take.
    synthetic : what stands for OOD molecules, if there are none.
    """
    storage = f"{absolute(settings.output_dir)}/.ray_train"
    keys = _keys_of(molecules, synthetic)
    name = training_name(settings, KeyedTable("", "", encoded.result.identity).key, keys)
    with written_features(
        molecules, encoded, space, settings, storage, name, synthetic
    ) as features:
        job = head_job(molecules, features, space, settings, share, synthetic)
        if finetuning is not None:
            job = _finetuned_job(job, encoded.result, finetuning)
        passes = settings.epochs * sum(len(job.keys[role]) for role in ("id_train", "ood_train"))
        light = finetuning is None or finetuning.is_short(passes)
        trainer = _trainer(job, device == "cuda", storage, name, share, light)
        result = fit(trainer, OUT_OF_MEMORY_ADVICE)
    head, finetuned = _trained(read_state(result.checkpoint)["best"], settings, finetuning)
    ran_in = "driver" if trainer.running_in_local_mode else "workers"
    made = made_of(result.return_value, head, settings, ran_in)
    return replace(
        made,
        stats={**made.stats, **_finetuning_stats(finetuning, job)},
        finetuned=finetuned,
        leftovers=(f"{storage}/{name}",),  # a new start shall train again
    )


def made_of(
    outcome: dict[str, Any], head: dict[str, Tensor], settings: TrainSettings, ran_in: str
) -> Trained:
    """A trained head, of what `training_loop` returned, and its tensors at the best epoch.

    Parameters
    ----------
    ran_in : "driver" or "workers".
    """
    if outcome["resumed_after_epoch"]:
        log.info("resumed after epoch %s", outcome["resumed_after_epoch"])
    times = [epoch["epoch_time_seconds"] for epoch in outcome["history"]]
    names = (
        "resumed_after_epoch", "best_epoch", "trained_parameters", "train_time_seconds",
        "eval_time_seconds",
        *(f"peak_{kind}_memory_{phase}_gb" for kind in ("gpu", "resident")
          for phase in ("train", "eval")),
    )  # fmt: skip
    config = {
        "width": outcome["feature_width"],
        "hidden_dim": settings.hidden_dim,
        "dropout": settings.dropout,
    }
    return Trained(
        files={MODEL: safetensors.torch.save(head)},
        config={"detector": settings.loss, "head": config},
        history=outcome["history"],
        best_val_auroc=outcome["best_val_auroc"],
        stats={
            "epochs": len(times),
            "num_workers": settings.num_workers,
            "ran_in": ran_in,
            "features_resident": outcome["resident"],
            "avg_epoch_time_seconds": sum(times) / len(times),
            **{name: outcome[name] for name in names},
        },
    )


def _keys_of(molecules: pa.Table, synthetic: SyntheticOod | None = None) -> dict[str, list[str]]:
    keys = {
        role: molecules.filter(pc.equal(molecules["role"], role))["key"].to_pylist()
        for role in TRAINING_ROLES
    }
    return keys if synthetic is None else {**keys, **synthetic.keys}


def _domain_numbers(molecules: pa.Table) -> dict[str, np.ndarray]:
    """By training role, the number of each molecule's domain among those of its role.

    Raises
    ------
    InputError
        If the molecules have no domains.
    """
    numbers = {}
    for role in ("id_train", "ood_train"):
        domains = molecules.filter(pc.equal(molecules["role"], role))["domain"]
        if domains.null_count == len(domains):
            raise InputError(
                f"--group_weights dro weighs domains, and {role} has none; name their column by "
                "--domain_column, or make a split with jobs.split"
            )
        names = [name or "" for name in domains.to_pylist()]  # those without are one domain
        numbers[role] = np.unique(names, return_inverse=True)[1]
    return numbers


def head_job(
    molecules: pa.Table,
    features: KeyedTable,
    space: FeatureSpace,
    settings: TrainSettings,
    share: float,
    synthetic: SyntheticOod | None = None,
) -> TrainingJob:
    """What a worker needs to train a head on features."""
    threads, keys = threads_of(settings.num_workers, share), _keys_of(molecules, synthetic)
    job = TrainingJob(settings, features, keys, threads, standard=space.plain)
    if settings.group_weights == "dro":
        job = replace(job, domains=_domain_numbers(molecules))
    return job


def _finetuned_job(job: TrainingJob, encoded: EncodeResult, finetuning: FinetuneRun) -> TrainingJob:
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
    job: TrainingJob, use_gpu: bool, storage: str, name: str, share: float, light: bool
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
        light=light,
    )
