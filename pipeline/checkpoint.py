"""The checkpoint folder: a trained head, what it was trained on, and how well it does.

`config.json`, `model.safetensors`, `metrics.json` and `training_molecules.parquet`; no pickle.
If the encoder was finetuned, `encoder.safetensors` holds its trained tensors, and no others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
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
from pipeline.files import parquet_bytes, write_atomically
from pipeline.finetune import FinetunedEncoder

FORMAT = 1
CONFIG, MODEL, METRICS = "config.json", "model.safetensors", "metrics.json"
ENCODER, MOLECULES = "encoder.safetensors", "training_molecules.parquet"


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
    with _told("checkpoint", folder):
        config = _config(folder)
        content = _read(folder, MODEL)
        molecules = pq.read_table(BytesIO(_read(folder, MOLECULES)))
        head = EnergyHead(**config["head"])
        head.load_state_dict(safetensors.torch.load(content))
        return Checkpoint(
            head.eval(), config["encoder"], config["features_key"], config["settings"], molecules,
            "finetuned" in config, hashlib.sha256(content).hexdigest(),
        )  # fmt: skip


def finetuned_of(tensors: dict[str, Tensor], **made_of: Any) -> FinetunedEncoder:
    """A finetuned encoder under the SHA-256 that its file in a checkpoint will have.

    Parameters
    ----------
    **made_of : the other attributes of `FinetunedEncoder`.
    """
    sha256 = hashlib.sha256(safetensors.torch.save(tensors)).hexdigest()
    return FinetunedEncoder(tensors, **made_of, sha256=sha256)


def read_finetuned(folder: str) -> FinetunedEncoder:
    """What finetuning made of the encoder, from a checkpoint folder.

    Raises
    ------
    InputError
        As `load_checkpoint`; also if only a head was trained, or the file has been changed.
    """
    folder = folder.rstrip("/")
    with _told("finetuned", folder):
        config = _config(folder)
        if "finetuned" not in config:
            raise KeyError("of a finetuned encoder: only a head was trained")
        content = _read(folder, ENCODER)
        if hashlib.sha256(content).hexdigest() != config["finetuned"]["sha256"]:
            raise KeyError(f"{ENCODER} is not the file that config.json describes")
        return FinetunedEncoder.of(config["finetuned"], safetensors.torch.load(content))


def _config(folder: str) -> dict[str, Any]:
    config = json.loads(_read(folder, CONFIG))
    if config["format"] != FORMAT:
        raise KeyError(f"format {config['format']}, this version reads {FORMAT}")
    return config


@contextmanager
def _told(flag: str, folder: str) -> Iterator[None]:
    """Turn what a damaged folder raises into one line."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError, pa.ArrowInvalid,
            KeyError, TypeError, RuntimeError) as error:  # fmt: skip
        reason = (error.args[0] if isinstance(error, KeyError) else str(error)).splitlines()[0]
        raise InputError(f"--{flag} {folder}: not a checkpoint: {reason}") from None


def json_bytes(content: dict[str, Any]) -> bytes:
    """Indented JSON as bytes."""
    return json.dumps(content, indent=2).encode() + b"\n"


def _read(folder: str, name: str) -> bytes:
    try:
        fs, path = fsspec.url_to_fs(f"{folder}/{name}")
        return fs.cat_file(path)
    except (OSError, ValueError, ImportError):
        raise KeyError(f"no {name} in it; give the folder that jobs.train wrote") from None
