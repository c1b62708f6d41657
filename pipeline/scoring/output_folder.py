"""What lies in the output folder of jobs.score, and which chunks of a library it has already."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import fsspec
import pyarrow as pa

from pipeline.molecules.folders import DataFile
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute, json_bytes, read_parquet, write_atomically
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
        earlier = {"fragments": "keep", "structures": "made"}  # versions knew nothing else
        before = {**earlier, **json.loads(fs.cat_file(path))}
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


def part_files(output_dir: str, *folders: str) -> list[str]:
    """Paths of the folders' parts, in the order of the library."""
    output, found = absolute(output_dir), []
    for folder in folders:
        fs, path = fsspec.url_to_fs(f"{output}/{folder}")
        if fs.exists(path):
            fs.invalidate_cache(path)
            found += [part for part in fs.ls(path, detail=False) if part.endswith(".parquet")]
    return sorted(found, key=lambda part: part.rsplit("/", 1)[-1])


def read_part(output_dir: str, part: str, columns: Sequence[str]) -> pa.Table:
    """Columns of a part; `structure` is null where an earlier version wrote it.

    Raises
    ------
    DamagedFile
        If it is damaged; it was set aside, and its chunk is no longer done.
    """
    output = absolute(output_dir)
    fs, _ = fsspec.url_to_fs(output)
    *_, folder, name = part.split("/")
    spoils = [f"{output}/{SCORES_FOLDER}/{name}"] if folder != SCORES_FOLDER else []
    table = read_parquet(fs, part, columns, spoils, optional=["structure"])
    for column in set(columns) - set(table.column_names):
        table = table.append_column(column, pa.nulls(table.num_rows, pa.string()))
    return table


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
    names = ("alpha", "chunk_size", "smiles_column", "id_column", "fragments", "structures")
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
