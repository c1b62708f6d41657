"""The files of a checkpoint folder: read by name, faults told in one line.

What they hold is known above: the head's to `pipeline.training.checkpoints.checkpoint`, a finetuned
encoder's to `pipeline.encoders.unimol.finetuning.finetuned`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa
from safetensors import SafetensorError

from pipeline.runtime.errors import InputError

FORMAT = 1
CONFIG = "config.json"


def read_config(folder: str) -> dict[str, Any]:
    """The content of config.json; KeyError if it is of another format."""
    config = json.loads(read_member(folder, CONFIG))
    if config["format"] != FORMAT:
        raise KeyError(f"format {config['format']}, this version reads {FORMAT}")
    return config


@contextmanager
def told_as_one_line(flag: str, folder: str, job: str = "jobs.train") -> Iterator[None]:
    """Turn what a damaged folder raises into an InputError that names the flag."""
    try:
        yield
    except InputError as error:  # of a part, which does not know whose it is
        told = str(error)
        raise InputError(told if told.startswith("--") else f"--{flag} {folder}: {told}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError, pa.ArrowInvalid,
            AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:  # fmt: skip
        reason = (error.args[0] if isinstance(error, KeyError) else str(error)).splitlines()[0]
        raise InputError(
            f"--{flag} {folder}: not a checkpoint: {reason}; give the folder that {job} wrote"
        ) from None


def read_member(folder: str, name: str) -> bytes:
    """A file of the folder; KeyError if it is not there."""
    try:
        fs, path = fsspec.url_to_fs(f"{folder}/{name}")
        return fs.cat_file(path)
    except (OSError, ValueError, ImportError):
        raise KeyError(f"no {name} in it") from None
