"""The checkpoint folder: a trained head, what it was trained on, and how well it does.

`config.json`, `model.safetensors`, `metrics.json` and `training_molecules.parquet`; no pickle.
If the encoder was finetuned, `encoder.safetensors` holds its trained tensors, and no others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
from torch import Tensor

from pipeline.detectors.energy_head import EnergyHead
from pipeline.encoders.unimol.finetuning.finetuned import ENCODER, FinetunedEncoder
from pipeline.runtime.files import json_bytes, parquet_bytes, write_atomically
from pipeline.store.checkpoint_folder import (
    CONFIG,
    FORMAT,
    read_config,
    read_member,
    told_as_one_line,
)

MODEL, METRICS = "model.safetensors", "metrics.json"
MOLECULES = "training_molecules.parquet"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes
    ----------
    head : in evaluation mode, on the CPU.
    encoder : identity of the encoder that made the features, and `features_key`, its hash.
    settings : all settings of the training run.
    molecules : `id`, `key`, `smiles`, `role` of every molecule that training and validation saw.
    finetuned : whether the encoder was finetuned; `read_finetuned` reads what came of it.
    head_sha256 : of the head's file.
    """

    head: EnergyHead
    encoder: dict[str, Any]
    features_key: str
    settings: dict[str, Any]
    molecules: pa.Table
    finetuned: bool
    head_sha256: str


def save_checkpoint(
    folder: str,
    head: dict[str, Tensor],
    config: dict[str, Any],
    metrics: dict[str, Any],
    molecules: pa.Table,
    finetuned: FinetunedEncoder | None = None,
) -> None:
    """Write a checkpoint folder, at a path or URI; config.json comes last and completes it."""
    if finetuned is not None:
        config = {**config, "finetuned": finetuned.config}
        write_atomically(f"{folder}/{ENCODER}", safetensors.torch.save(finetuned.tensors))
    write_atomically(f"{folder}/{MODEL}", safetensors.torch.save(head))
    write_atomically(f"{folder}/{METRICS}", json_bytes(metrics))
    write_atomically(f"{folder}/{MOLECULES}", parquet_bytes(molecules))
    write_atomically(f"{folder}/{CONFIG}", json_bytes({"format": FORMAT, **config}))


def load_checkpoint(folder: str) -> Checkpoint:
    """Read a checkpoint folder.

    Raises
    ------
    InputError
        If the folder or a file is missing, or holds something else.
    """
    folder = folder.rstrip("/")
    with told_as_one_line("checkpoint", folder):
        config = read_config(folder)
        content = read_member(folder, MODEL)
        molecules = pq.read_table(BytesIO(read_member(folder, MOLECULES)))
        head = EnergyHead(**config["head"])
        head.load_state_dict(safetensors.torch.load(content))
        return Checkpoint(
            head.eval(), config["encoder"], config["features_key"], config["settings"], molecules,
            "finetuned" in config, hashlib.sha256(content).hexdigest(),
        )  # fmt: skip
