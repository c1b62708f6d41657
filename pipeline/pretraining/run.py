"""Pretraining: molecules to conformers in the store, to Uni-Mol weights of one's own."""

from __future__ import annotations

import io
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.conformers.settings import ConformerSettings
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoders.unimol.precision import PRECISIONS, default_precision
from pipeline.encoders.unimol.published_format import published_format
from pipeline.encoders.unimol.tokens import TOKEN_ORDERS, Vocabulary
from pipeline.encoders.unimol.weights import UNTRAINED
from pipeline.encoding.plan import plan_encoding
from pipeline.encoding.stored_conformers import embed
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.rejected import with_ids, write_rejected
from pipeline.molecules.sources import parse_rows
from pipeline.pretraining.curves import pretraining_figure, progress_line
from pipeline.pretraining.loop import PretrainJob, model_config, pretraining_loop
from pipeline.pretraining.settings import PretrainSettings
from pipeline.runtime.cluster import cluster_cores
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute, json_bytes, remove, write_atomically
from pipeline.runtime.progress_curves import watched
from pipeline.runtime.ray_train import fit, read_state, run_name, threads_of, torch_trainer
from pipeline.runtime.text import records_csv

MODEL, DICTIONARY, CURVES = "model.pt", "dict.txt", "pretraining_curves.csv"
# Settings that say where and how fast, not what: a run killed under one value of these may be
# resumed under another.
NOT_IDENTITY = (
    "output_dir", "cache_root", "num_workers", "device", "checkpoint_every", "weights_precision",
    "force_recompute_cache", "retry_rejected", "conformer_seconds", "conformer_gb", "dataset",
    "data_file",
)  # fmt: skip


def run_pretraining(settings: PretrainSettings) -> dict[str, Any]:
    """Make the conformers that the store lacks, pretrain on them, write the weights.

    A run that was killed continues from its last checkpoint when it is started again with the
    same settings and molecules.

    Returns
    -------
    dict
        The content of pretraining_stats.json. In the output folder lie also the weights
        (model.pt, with dict.txt for unimol_tools), the curves (CSV, PNG) and rejected.parquet.

    Raises
    ------
    InputError
        If the data file or a folder cannot be used, or no molecule is left to train on.
    """
    check_files(settings)
    rows = read_rows(settings)
    plan = plan_encoding(_conformers_of(settings))
    settings = _decided(settings, plan.device)
    source = parse_rows(rows, settings)
    embedded = embed(source.molecules, plan)
    rejected = pa.concat_tables([source.rejected, with_ids(embedded.rejected, source.molecules)])
    write_rejected(rejected, settings.output_dir)
    train_keys, holdout_keys = _held_out(embedded.keys, settings)
    use_gpu = plan.device == "cuda"
    curves = f"{absolute(settings.output_dir)}/{CURVES}"
    job = PretrainJob(
        settings, embedded.conformers, train_keys, holdout_keys,
        threads_of(settings.num_workers), curves,
    )  # fmt: skip
    storage = f"{absolute(settings.output_dir)}/.ray_train"
    name = run_name(settings, NOT_IDENTITY, embedded.conformers.key, embedded.keys)
    trainer = torch_trainer(
        pretraining_loop, {"job": job}, workers=settings.num_workers, use_gpu=use_gpu,
        cores=cluster_cores(), storage=storage, name=name,
    )  # fmt: skip
    with watched(curves, progress_line, told=1):  # the first line is before any step
        result = fit(trainer, "lower --batch_size")
    outcome = result.return_value
    _write_weights(read_state(result.checkpoint)["model"], settings)
    history = outcome.pop("history")
    write_atomically(curves, records_csv(history))
    pretraining_figure(history, f"{settings.output_dir}/pretraining_curves.png")
    kept = pc.sum(pc.invert(pc.is_in(source.molecules["key"], embedded.rejected["key"])))
    stats = {
        "dataset": settings.dataset or settings.data_file,
        "rows_in": source.rows,
        "rows_kept": kept.as_py() or 0,
        "rejected": rejected.num_rows,
        "molecules_trained_on": len(train_keys),
        "molecules_held_out": len(holdout_keys),
        "conformers_made": embedded.made,
        "conformer_time_seconds": embedded.seconds,
        "device": "cuda" if use_gpu else "cpu",
        "num_workers": settings.num_workers,
        **outcome,
        "molecules_per_second": outcome["steps"]
        / max(outcome["train_time_seconds"], 1e-9)
        * min(settings.batch_size, len(train_keys)),
        "before": _of_prefix(history[0]),
        "after": _of_prefix(history[-1]),
        "settings": asdict(settings),
    }
    write_atomically(f"{settings.output_dir}/pretraining_stats.json", json_bytes(stats))
    remove(f"{storage}/{name}")  # a new start shall train again
    return stats


def _decided(settings: PretrainSettings, device: str) -> PretrainSettings:
    """With the precision that the device does best."""
    if settings.precision != "auto":
        return settings
    best = default_precision(device)
    # fp16 would need its gradients scaled; those who have no bf16 units train in fp32.
    return replace(settings, precision="fp32" if best == "fp16" else best)


def _conformers_of(settings: PretrainSettings) -> EncoderSettings:
    """What makes the conformers that a Uni-Mol without hydrogens is encoded from."""
    shared = {f.name: getattr(settings, f.name) for f in fields(ConformerSettings)}
    return EncoderSettings(weights=UNTRAINED, precision="fp32", device=settings.device, **shared)


def _held_out(keys: list[str], settings: PretrainSettings) -> tuple[list[str], list[str]]:
    """Keys to train on and keys held out, by a seeded draw."""
    if len(keys) <= settings.holdout_size:
        raise InputError(
            f"{settings.data_file}: {len(keys)} molecules have conformers, and --holdout_size "
            f"{settings.holdout_size} leaves none to train on"
        )
    order = np.random.default_rng(settings.seed).permutation(len(keys))
    drawn = [keys[i] for i in order]
    return drawn[settings.holdout_size :], drawn[: settings.holdout_size]


def _write_weights(tensors: dict[str, torch.Tensor], settings: PretrainSettings) -> None:
    """The checkpoint in the published format, and the dictionary that its rows follow."""
    dtype = PRECISIONS[settings.weights_precision]
    content = io.BytesIO()
    stored = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    torch.save(published_format(model_config(settings), stored), content)
    symbols = Vocabulary(TOKEN_ORDERS[settings.token_order]).symbols[:-1]  # [MASK] is implied
    write_atomically(f"{settings.output_dir}/{MODEL}", content.getvalue())
    write_atomically(f"{settings.output_dir}/{DICTIONARY}", "\n".join([*symbols, ""]).encode())


def _of_prefix(line: dict[str, float], prefix: str = "heldout_") -> dict[str, float]:
    return {k: v for k, v in line.items() if k.startswith(prefix)}
