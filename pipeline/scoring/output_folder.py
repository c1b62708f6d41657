"""What lies in the output folder of jobs.score, and which chunks of a library it has already."""

from __future__ import annotations

import json
import logging
from typing import Any

import fsspec

from pipeline.molecules.raw_rows import DataFile
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute, json_bytes, write_atomically
from pipeline.scoring.settings import ScoreSettings
from pipeline.scoring.steps import REJECTED_FOLDER, SCORES_FOLDER
from pipeline.training.checkpoint import Checkpoint

log = logging.getLogger(__name__)

IDENTITY = "_settings.json"


def done_chunks(
    settings: ScoreSettings, checkpoint: Checkpoint, files: list[DataFile], features: str
) -> frozenset[str]:
    """Chunks whose scores the output folder has; notes there what decides them.

    Parameters
    ----------
    features : key of the features table that the scores come from.

    Raises
    ------
    InputError
        If the folder holds scores that these settings would not give.
    """
    output = absolute(settings.output_dir)
    identity = _identity(settings, checkpoint, files, features)
    scored = _parts(f"{output}/{SCORES_FOLDER}")
    fs, path = fsspec.url_to_fs(f"{output}/{IDENTITY}")
    if scored and fs.exists(path):
        before = json.loads(fs.cat_file(path))
        changed = [name for name in identity if before.get(name) != identity[name]]
        if changed:
            raise InputError(
                f"--output_dir {settings.output_dir} holds scores of another {changed[0]}; give "
                "another folder"
            )
    write_atomically(f"{output}/{IDENTITY}", json_bytes(identity))
    if settings.retry_rejected:
        scored -= _parts(f"{output}/{REJECTED_FOLDER}")
    if scored:
        log.info("%s chunks are scored already", f"{len(scored):,}")
    return scored


def _parts(folder: str) -> frozenset[str]:
    """Names of a folder's parts; an empty file is none."""
    fs, path = fsspec.url_to_fs(folder)
    if not fs.exists(path):
        return frozenset()
    fs.invalidate_cache(path)
    found = (
        (entry["name"].rsplit("/", 1)[-1], entry["size"]) for entry in fs.ls(path, detail=True)
    )
    return frozenset(
        name.removesuffix(".parquet")
        for name, size in found
        if name.startswith("part-") and name.endswith(".parquet") and size
    )


def _identity(
    settings: ScoreSettings, checkpoint: Checkpoint, files: list[DataFile], features: str
) -> dict[str, Any]:
    """What decides the content of a chunk's file."""
    names = ("alpha", "chunk_size", "smiles_column", "id_column")
    return {
        **{name: getattr(settings, name) for name in names},
        "data_file": [{**file._asdict(), **_version(file)} for file in files],
        "checkpoint": checkpoint.head_sha256,
        "encoder": features,
    }


def _version(file: DataFile) -> dict[str, Any]:
    """A file's size, and the time or the tag of its last change."""
    fs, path = fsspec.url_to_fs(file.uri)
    info = fs.info(path)
    names = ("size", "mtime", "ETag", "etag", "LastModified")
    return {name: str(info[name]) for name in names if name in info}
