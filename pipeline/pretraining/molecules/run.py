"""Pretraining on molecules: conformers in the store, then Uni-Mol weights of one's own."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.conformers.settings import ConformerSettings
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoders.unimol.precision import PRECISIONS
from pipeline.encoders.unimol.published_format import published_format
from pipeline.encoders.unimol.tokens import TOKEN_ORDERS, Vocabulary
from pipeline.encoders.unimol.weights import UNTRAINED
from pipeline.encoding.plan import plan_encoding
from pipeline.encoding.stored_conformers import embed
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.rejected import with_ids, write_rejected
from pipeline.molecules.sources import parse_rows
from pipeline.pretraining.curves import MOLECULES
from pipeline.pretraining.molecules.loop import PretrainingState, PretrainJob, model_config
from pipeline.pretraining.settings import PretrainSettings
from pipeline.pretraining.training import (
    check_any_left,
    decided,
    train_on_workers,
    write_outcome,
)
from pipeline.runtime.files import write_atomically

MODEL, DICTIONARY = "model.pt", "dict.txt"


def pretrain_on_molecules(settings: PretrainSettings) -> dict[str, Any]:
    """Make the conformers that the store lacks, pretrain on them, write the weights.

    Returns, raises: see `pipeline.pretraining.run.run_pretraining`.
    """
    check_files(settings)
    rows = read_rows(settings)
    plan = plan_encoding(_conformers_of(settings))
    settings = decided(settings, plan.device)
    source = parse_rows(rows, settings)
    embedded = embed(source.molecules, plan)
    rejected = pa.concat_tables([source.rejected, with_ids(embedded.rejected, source.molecules)])
    write_rejected(rejected, settings.output_dir)
    train_keys, holdout_keys = _held_out(embedded.keys, settings)
    job = PretrainJob(settings, embedded.conformers, train_keys, holdout_keys)
    trained = train_on_workers(
        PretrainingState, job, settings, plan.device, "lower --batch_size",
        embedded.conformers.key, embedded.keys,
    )  # fmt: skip
    _write_weights(trained.tensors, settings)
    kept = pc.sum(pc.invert(pc.is_in(source.molecules["key"], embedded.rejected["key"])))
    seconds = max(trained.outcome["train_time_seconds"], 1e-9)
    stats = {
        "dataset": settings.dataset or settings.data_file,
        "rows_in": source.rows,
        "rows_kept": kept.as_py() or 0,
        "rejected": rejected.num_rows,
        "molecules_trained_on": len(train_keys),
        "molecules_held_out": len(holdout_keys),
        "conformers_made": embedded.made,
        "conformer_time_seconds": embedded.seconds,
        "device": plan.device,
        "num_workers": settings.num_workers,
        "molecules_per_second": trained.outcome["steps"] / seconds
        * min(settings.batch_size, len(train_keys)),
    }  # fmt: skip
    return write_outcome(trained, stats, settings, MOLECULES)


def _conformers_of(settings: PretrainSettings) -> EncoderSettings:
    """What makes the conformers that a Uni-Mol without hydrogens is encoded from."""
    shared = {f.name: getattr(settings, f.name) for f in fields(ConformerSettings)}
    return EncoderSettings(weights=UNTRAINED, precision="fp32", device=settings.device, **shared)


def _held_out(keys: list[str], settings: PretrainSettings) -> tuple[list[str], list[str]]:
    """Keys to train on and keys held out, by a seeded draw."""
    check_any_left(len(keys), "molecules have conformers", settings)
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
