"""What lies in the output folder of jobs.score, and which chunks of a library it has already."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa

from pipeline.molecules.folders import DataFile, data_files
from pipeline.molecules.kinds import (
    SEQUENCE,
    kind_of_columns,
    named_for,
    names_for,
    unnamed,
)
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import (
    absolute,
    json_bytes,
    parquet_bytes,
    read_parquet,
    write_atomically,
)
from pipeline.scoring.levels import SCORES, Levels, relevelled
from pipeline.scoring.settings import ScoreSettings
from pipeline.scoring.steps import REJECTED_FOLDER, SCORES_FOLDER

if TYPE_CHECKING:  # imports torch, and tasks on workers read parts
    from pipeline.training.checkpoints.checkpoint import Checkpoint

log = logging.getLogger(__name__)

IDENTITY, LEVELS = "_settings.json", "levels"
OTHER = {"columns": "version, with fewer columns", "errors": "error model"}
OLD_COLUMNS = ["id", "smiles", "energy", "p_value", "is_ood", "structure"]


def done_chunks(
    settings: ScoreSettings,
    checkpoint: Checkpoint,
    files: list[DataFile],
    features: str,
    levels: Levels,
    errors: str | None,
) -> frozenset[str]:
    """Chunks whose scores the output folder has; notes there what decides them.

    Verdicts of other levels are rewritten from the scores.

    Parameters
    ----------
    features : key of the features that the scores come from.
    errors : SHA-256 of the error model; None without one.

    Raises
    ------
    InputError
        If the folder holds scores that these settings would not give.
    DamagedFile
        If a part is damaged; it was set aside.
    """
    output = absolute(settings.output_dir)
    identity = _identity(settings, checkpoint, files, features) | {"errors": errors}
    now = asdict(levels)
    scored = _parts(f"{output}/{SCORES_FOLDER}")
    fs, path = fsspec.url_to_fs(f"{output}/{IDENTITY}")
    before: dict[str, Any] = {}
    if scored and fs.exists(path):
        # Versions knew nothing else of what an older file does not say.
        earlier = {"fragments": "keep", "structures": "made", "columns": OLD_COLUMNS}
        before = {**earlier, **json.loads(fs.cat_file(path))}
        changed = [name for name in identity if before.get(name) != identity[name]]
        if changed:
            told = OTHER.get(changed[0], changed[0])
            raise InputError(
                f"--output_dir {settings.output_dir} holds scores of another {told}; give another "
                "folder"
            )
    if before and before.get(LEVELS) != json.loads(json.dumps(now)):
        # Without levels until all are rewritten, so that a kill in between leaves no mixture.
        write_atomically(f"{output}/{IDENTITY}", json_bytes(identity))
        log.info("rewriting the verdicts of %s chunks by other levels", f"{len(scored):,}")
        for part in part_files(settings.output_dir, SCORES_FOLDER):
            table = read_part(settings.output_dir, part, SCORES.names)
            content = parquet_bytes(named_for(relevelled(table, levels), checkpoint.kind))
            write_atomically(f"{output}/{SCORES_FOLDER}/{part.rsplit('/', 1)[-1]}", content)
    write_atomically(f"{output}/{IDENTITY}", json_bytes({**identity, LEVELS: now}))
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
    """Columns of a part, by their names within the flow (`kinds.named_for`).

    Raises
    ------
    DamagedFile
        If it is damaged; it was set aside, and its chunk is no longer done.
    """
    output = absolute(output_dir)
    fs, _ = fsspec.url_to_fs(output)
    *_, folder, name = part.split("/")
    spoils = [f"{output}/{SCORES_FOLDER}/{name}"] if folder != SCORES_FOLDER else []
    table = read_parquet(fs, part, lambda there: names_for(columns, kind_of_columns(there)), spoils)
    return unnamed(table)


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
    names = ["chunk_size", "smiles_column", "id_column", "fragments", "structures"]
    if checkpoint.kind == SEQUENCE:
        names += ["sequence_column", "residues", "min_length", "max_length"]
    own = [] if settings.predictions is None else data_files(settings.predictions)
    return {
        "columns": SCORES.names,
        **{name: getattr(settings, name) for name in names},
        "predictions": [version_of(file) for file in own],
        "data_file": [version_of(file) for file in files],
        "checkpoint": checkpoint.sha256,
        "encoder": features,
    }


def version_of(file: DataFile) -> dict[str, Any]:
    """A file, its size, and the time or the tag of its last change."""
    fs, path = fsspec.url_to_fs(file.uri)
    info = fs.info(path)
    names = ("size", "mtime", "ETag", "etag", "LastModified")
    return {**file._asdict(), **{name: str(info[name]) for name in names if name in info}}
