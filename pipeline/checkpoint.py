"""The checkpoint folder: a trained head, what it was trained on, and how well it does.

`config.json`, `model.safetensors`, `metrics.json` and `training_molecules.parquet`; no pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.energy import EnergyHead
from pipeline.errors import InputError
from pipeline.store import parquet_bytes, write_atomically

FORMAT = 1
CONFIG, MODEL, METRICS = "config.json", "model.safetensors", "metrics.json"
MOLECULES = "training_molecules.parquet"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes
    ----------
    head : in evaluation mode, on the CPU.
    encoder : identity of the encoder that made the features, and `features_key`, its hash.
    settings : all settings of the training run.
    molecules : `id`, `key`, `role` of every molecule that training and validation saw.
    """

    head: EnergyHead
    encoder: dict[str, Any]
    features_key: str
    settings: dict[str, Any]
    molecules: pa.Table


def save_checkpoint(
    folder: str,
    head: dict[str, Tensor],
    config: dict[str, Any],
    metrics: dict[str, Any],
    molecules: pa.Table,
) -> None:
    """Write a checkpoint folder, at a path or URI; config.json comes last and completes it."""
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
    try:
        config = json.loads(_read(folder, CONFIG))
        if config["format"] != FORMAT:
            raise KeyError(f"format {config['format']}, this version reads {FORMAT}")
        state = safetensors.torch.load(_read(folder, MODEL))
        molecules = pq.read_table(BytesIO(_read(folder, MOLECULES)))
        head = EnergyHead(**config["head"])
        head.load_state_dict(state)
        return Checkpoint(
            head.eval(), config["encoder"], config["features_key"], config["settings"], molecules
        )
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError, pa.ArrowInvalid,
            KeyError, TypeError, RuntimeError) as error:  # fmt: skip
        reason = str(error).splitlines()[0]
        raise InputError(f"--checkpoint {folder}: not a checkpoint: {reason}") from None


def json_bytes(content: dict[str, Any]) -> bytes:
    """Indented JSON as bytes."""
    return json.dumps(content, indent=2).encode() + b"\n"


def _read(folder: str, name: str) -> bytes:
    try:
        fs, path = fsspec.url_to_fs(f"{folder}/{name}")
        return fs.cat_file(path)
    except (OSError, ValueError, ImportError):
        raise InputError(
            f"--checkpoint {folder}: no {name} in it; give the folder that jobs.train wrote"
        ) from None
