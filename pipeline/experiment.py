"""The main job's first calls: encode a data file, train on it. `evaluation_run` has the last."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.checkpoint import json_bytes
from pipeline.cluster import settled
from pipeline.config import (
    EncoderSettings,
    EncodeSettings,
    SourceSettings,
    TrainSettings,
    TuneSettings,
)
from pipeline.encode import EncodeResult, encode
from pipeline.errors import InputError
from pipeline.files import parquet_bytes, write_atomically
from pipeline.finetune_run import (
    check_finetuning_flags,
    choose_trunk,
    prepare_finetuning,
)
from pipeline.formats import data_files
from pipeline.sources import Molecules, read_molecules, with_ids
from pipeline.splits import ROLES, assign_roles
from pipeline.tables import Tables
from pipeline.training import TRAINING_ROLES, train
from pipeline.trunk import TrunkSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """Molecules that have features, and the rows that could not get there.

    Attributes
    ----------
    molecules : rows with features: `id`, `key`, `smiles`, ..., and `role` if roles were asked.
    rejected : `id`, `smiles`, `stage`, `reason`.
    result : what encoding did.
    """

    molecules: pa.Table
    rejected: pa.Table
    result: EncodeResult


def run_encoding(settings: EncodeSettings) -> dict[str, Any]:
    """Encode all rows of a data file; write molecules, rejected rows and a summary.

    Returns
    -------
    dict
        The content of run_summary.json. In the output folder lie also molecules.parquet (each
        id with its key in the store) and rejected.parquet.
    """
    check_inputs(settings)
    source = read_molecules(settings)
    encoded = encode_molecules(source.molecules, source, settings)
    if encoded.molecules.num_rows + encoded.rejected.num_rows != source.rows:
        raise RuntimeError(
            f"{source.rows} rows went in, {encoded.molecules.num_rows} came out and "
            f"{encoded.rejected.num_rows} were rejected; this is a fault of MolSieve"
        )
    write_rejected(encoded.rejected, settings.output_dir)
    write_atomically(f"{settings.output_dir}/molecules.parquet", parquet_bytes(encoded.molecules))
    summary = _summary(source, encoded, settings)
    write_atomically(f"{settings.output_dir}/run_summary.json", json_bytes(summary))
    return summary


def run_training(settings: TrainSettings, share: float = 1.0) -> dict[str, Any]:
    """Encode a split file's sample, train the head on it, write the checkpoint.

    Parameters
    ----------
    share : part of the cluster's cores that the training may take.

    Returns
    -------
    dict
        The content of training_stats.json.
    """
    check_inputs(settings)
    decided = settled(settings)  # what the checkpoint must say
    settings = replace(settings, precision=decided.precision, finetuned=decided.finetuned)
    check_finetuning_flags(settings)
    finetuning = prepare_finetuning(settings) if settings.finetune_encoder else None
    source = read_molecules(settings)
    # The test molecules' features are the base encoder's, of no use to a finetuned one.
    roles = tuple(ROLES) if finetuning is None else TRAINING_ROLES
    sample = assign_roles(source.molecules, settings, settings.data_file, roles)
    trunk = finetuning and choose_trunk(finetuning, sample, settings)
    encoded = encode_molecules(sample, source, settings, trunk)
    write_rejected(encoded.rejected, settings.output_dir)
    require_roles(encoded, TRAINING_ROLES, settings.data_file)
    summary = _summary(source, encoded, settings)
    write_atomically(f"{settings.output_dir}/run_summary.json", json_bytes(summary))
    return train(encoded.molecules, encoded.result, settings, finetuning, share)


def check_inputs(settings: EncodeSettings | TrainSettings | TuneSettings) -> None:
    """Tell a missing file, bad weights or a folder that cannot be before any work is done.

    Raises
    ------
    InputError
        That names the flag to mend.
    """
    check_files(settings)
    Tables.of(settings)


def check_files(settings: SourceSettings) -> None:
    """The part of `check_inputs` that is about the data file and the folders."""
    data_files(settings.data_file)
    for flag in ("cache_root", "output_dir"):
        folder = getattr(settings, flag, None)
        if folder is None:
            continue
        try:
            fs, path = fsspec.url_to_fs(folder)
            fs.makedirs(path, exist_ok=True)
        except Exception as error:  # each filesystem has errors of its own
            raise InputError(f"--{flag} {folder}: cannot be written to: {error}") from None


def encode_molecules(
    molecules: pa.Table,
    source: Molecules,
    settings: EncoderSettings,
    trunk: TrunkSpec | None = None,
) -> Encoded:
    """Encode molecules of a source and tell those with features from the rejected rows.

    Parameters
    ----------
    trunk : activations to keep besides the features.
    """
    result = encode(molecules, settings, trunk)
    refused = pc.is_in(molecules["key"], result.rejected["key"].combine_chunks())
    rejected = pa.concat_tables([source.rejected, with_ids(result.rejected, molecules)])
    return Encoded(molecules.filter(pc.invert(refused)), rejected, result)


def _summary(source: Molecules, encoded: Encoded, settings: EncodeSettings | TrainSettings) -> dict:
    result = encoded.result
    roles = (
        Counter(encoded.molecules["role"].to_pylist())
        if "role" in encoded.molecules.column_names
        else {}
    )
    return {
        **result.label,
        "dataset": settings.dataset or settings.data_file,
        "rows_in": source.rows,
        "molecules_out": encoded.molecules.num_rows,
        "rejected": encoded.rejected.num_rows,
        "rejected_by_stage": dict(Counter(encoded.rejected["stage"].to_pylist())),
        "not_sampled": source.rows - encoded.molecules.num_rows - encoded.rejected.num_rows,
        "roles": roles,
        "found_in_store": result.known,
        "encoded": result.encoded,
        "encoding_time_seconds": result.seconds,
        "encoding_molecules_per_second": result.rate,
        "peak_gpu_memory_encoding_gb": result.peak_gpu_memory_gb,
        "peak_resident_memory_encoding_gb": result.peak_resident_memory_gb,
        "padding_share": result.stages.padding_share if result.stages else 0.0,
        "stages": result.stages and result.stages.summary(),
        "features": result.features.uri,
        "encoder_identity": result.identity,
    }


def write_rejected(rejected: pa.Table, folder: str, name: str = "rejected") -> None:
    """Write the rejected rows to a folder, and say how many there are."""
    write_atomically(f"{folder}/{name}.parquet", parquet_bytes(rejected))
    if rejected.num_rows:
        log.info("%s rows rejected; see %s/%s.parquet", f"{rejected.num_rows:,}", folder, name)


def require_roles(encoded: Encoded, roles: tuple[str, ...], source: str, least: int = 1) -> None:
    """Make sure that enough molecules of each role have features.

    Raises
    ------
    InputError
        That names the source and the role.
    """
    left = Counter(encoded.molecules["role"].to_pylist())
    for role in roles:
        if left[role] < least:
            raise InputError(
                f"{source}: {role} has {left[role]} molecules with features, needs at least {least}"
            )
