"""What a training leaves: its checkpoint, training_stats.json, training_dynamics.csv."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from pipeline.detectors.feature_space import FeatureSpace
from pipeline.encoding.views import EncodedViews
from pipeline.runtime.files import json_bytes, remove, write_atomically
from pipeline.runtime.text import records_csv
from pipeline.store.keyed_table import KeyedTable
from pipeline.training.checkpoints.checkpoint import save_checkpoint
from pipeline.training.settings import TrainSettings
from pipeline.training.trained import Trained

log = logging.getLogger(__name__)

CHECKPOINT_FOLDER = "checkpoint"
# Roles that a checkpoint keeps the molecules of.
SEEN = ("id_train", "ood_train", "id_val", "ood_val", "id_cal")
KEPT = ("id", "key", "smiles", "role", "label", "domain")


def write_checkpoint(
    folder: str,
    trained: Trained,
    molecules: pa.Table,
    encoded: EncodedViews,
    space: FeatureSpace,
    settings: TrainSettings,
    crossed: bool = False,
) -> None:
    """Write the checkpoint folder.

    Parameters
    ----------
    molecules : with roles; those of tests are left out.
    crossed : whether the folder holds the checkpoint `cross`.
    """
    base, finetuned = encoded.result.identity, trained.finetuned
    identity = base if finetuned is None else finetuned.identity_over(base)
    config = {
        **trained.config,
        "views": list(space.views),
        "encoder": identity,
        "features_key": KeyedTable("", "features", identity).key,
        "cross": crossed,
        "settings": asdict(replace(settings, detector=trained.config["detector"])),
    }
    metrics = {
        **encoded.result.label,
        "detector": trained.config["detector"],
        "best_val_auroc": trained.best_val_auroc,
        **(trained.history[-1] if trained.history else {}),
    }
    seen = molecules.filter(pa.compute.is_in(molecules["role"], pa.array(SEEN)))
    files = {**trained.files, **space.save()}
    save_checkpoint(folder, files, config, metrics, seen.select(KEPT), finetuned)


def write_training(
    trained: Trained,
    molecules: pa.Table,
    encoded: EncodedViews,
    settings: TrainSettings,
    device: str,
) -> dict[str, Any]:
    """Write training_stats.json and training_dynamics.csv; the former's content."""
    result, roles = encoded.result, Counter(molecules["role"].to_pylist())
    head = trained.config.get("head")
    stats = {
        **result.label,
        "dataset": settings.dataset or settings.id_file or settings.data_file,
        "seed": settings.seed,
        "detector": trained.config["detector"],
        "views": list(settings.view_names),
        **({"loss": trained.config["detector"]} if head else {}),
        "best_val_auroc": trained.best_val_auroc,
        "molecules": {role: roles[role] for role in SEEN if roles[role]},
        "device": device if head else "cpu",
        "encoding_time_seconds": result.seconds,
        "encoding_molecules_per_second": result.rate,
        "encoded_molecules": result.encoded,
        "peak_gpu_memory_encoding_gb": result.peak_gpu_memory_gb,
        "peak_resident_memory_encoding_gb": result.peak_resident_memory_gb,
        **trained.stats,
    }
    write_atomically(f"{settings.output_dir}/training_stats.json", json_bytes(stats))
    if trained.history:
        dynamics = records_csv(trained.history, result.label)
        write_atomically(f"{settings.output_dir}/training_dynamics.csv", dynamics)
    for folder in trained.leftovers:
        remove(folder)
    told = f" at epoch {stats['best_epoch']} of {stats['epochs']}" if head else ""
    log.info(
        "trained %s in %.1f s; validation AUROC %.4f%s", stats["detector"],
        stats["train_time_seconds"], trained.best_val_auroc, told,
    )  # fmt: skip
    return stats
