"""A library of any size to scores: the Ray Data graph, and what is left to do.

The driver sees counts alone. A chunk is done when its scores' file is there, so a run that is
killed continues with the others.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from pipeline import telemetry
from pipeline.checkpoint import Checkpoint, json_bytes, load_checkpoint
from pipeline.checkpoint_encoder import check_same_encoder, settings_of
from pipeline.cluster import EncoderPool, settled, start_ray
from pipeline.config import TrainSettings
from pipeline.conformers import NVMOLKIT
from pipeline.embed import ON_A_CORE
from pipeline.encode import encode, stages_of
from pipeline.errors import InputError
from pipeline.evaluation import energies_of
from pipeline.experiment import check_inputs
from pipeline.extremes import write_extremes
from pipeline.files import absolute, write_atomically
from pipeline.formats import data_files, stream_rows
from pipeline.raw_rows import DataFile
from pipeline.score_config import ScoreSettings
from pipeline.score_output import done_chunks
from pipeline.score_steps import (
    Calibration,
    Embed,
    ScoreChunk,
    Step,
    look_up,
    read_chunks,
)
from pipeline.store import new_run_stamp
from pipeline.tables import NODES, PEAKS, SHARES, Tables
from pipeline.tuning import tuned_pool

log = logging.getLogger(__name__)

ONE_CHUNK = {**ON_A_CORE, "batch_size": 1}


class Totals:
    """What this run's chunks say of themselves, added up.

    Attributes
    ----------
    sums : "rows", "encoded" and SHARES.
    peaks : PEAKS, the largest of any encoder.
    nodes : for each of NODES, molecules by node.
    """

    def __init__(self):
        self.sums: Counter[str] = Counter()
        self.peaks: Counter[str] = Counter()
        self.nodes: dict[str, Counter[str]] = {name: Counter() for name in NODES}

    def add(self, counts: pa.Table) -> None:
        """Add the counts of some chunks; see `ScoreChunk`."""
        for name in ("rows", "encoded", *SHARES):
            self.sums[name] += pc.sum(counts[name]).as_py()
        for name in PEAKS:
            self.peaks[name] = max(self.peaks[name], pc.max(counts[name]).as_py())
        for name, nodes in self.nodes.items():
            for found in counts[name].to_pylist():
                nodes.update(json.loads(found))

    def of_stages(self) -> dict[str, Any]:
        """Attributes of `pipeline.stages.Stages`."""
        nodes = {name: dict(counted) for name, counted in self.nodes.items()}
        return {"nodes": nodes, **{name: self.sums[name] for name in SHARES}}


def run_scoring(settings: ScoreSettings) -> dict[str, Any]:
    """Score every molecule of a library; write its scores, rejected rows and a summary.

    Returns
    -------
    dict
        The content of run_summary.json. In the output folder lie also `scores` (a Parquet
        dataset of SCORES), `rejected` (`id`, `smiles`, `stage`, `reason`), and of the most and
        least OOD molecules top.csv, most_ood.png and least_ood.png.

    Raises
    ------
    InputError
        If a file is missing or unreadable, the encoder is not the one that the head was
        trained on, alpha is below any p-value, or the output folder holds other scores.
    """
    checkpoint = load_checkpoint(settings.checkpoint)
    encoder = settings_of(
        checkpoint, settings, data_file=settings.data_file,
        conformer_seconds=settings.conformer_seconds, conformer_gb=settings.conformer_gb,
    )  # fmt: skip
    encoder = replace(  # None too: the training run's machine may have been another
        encoder, encoding_batch_size=settings.encoding_batch_size,
        encoder_workers=settings.encoder_workers,
    )  # fmt: skip
    files = data_files(settings.data_file)
    check_inputs(encoder)
    check_same_encoder(checkpoint, encoder)
    for file in files[:1]:  # a column that is not there is told before anything is computed
        next(stream_rows(file, settings, 1), None)
    start_ray()
    encoder = settled(encoder)
    tables = Tables.of(encoder)
    done = done_chunks(settings, checkpoint, files, tables.features.key)
    calibration = calibrated(checkpoint, encoder)
    count = len(calibration.energies)
    if settings.alpha < 1 / (count + 1):
        raise InputError(
            f"--alpha {settings.alpha:g}: with {count} ID validation molecules the smallest "
            f"p-value is {1 / (count + 1):.4g}; choose at least that"
        )
    progress, totals = telemetry.Progress("scores", None), Totals()
    graph = scoring_graph(checkpoint, encoder, tables, calibration, settings, files, done)
    for counts in graph.iter_batches(batch_size=None, batch_format="pyarrow"):
        totals.add(counts)
        progress.advance(pc.sum(counts["rows"]).as_py())
    stages = stages_of(encoder, progress.seconds, **totals.of_stages())
    found = write_extremes(settings.output_dir, settings.top)
    if found.rows == 0:
        raise InputError(f"{settings.data_file}: the file has no rows")
    summary = {
        "dataset": settings.dataset or settings.data_file,
        "checkpoint": settings.checkpoint,
        **{name: checkpoint.encoder[name] for name in ("encoder", "weights")},
        "rows_in": found.rows,
        "scored": found.scored,
        "rejected": found.rejected,
        "ood": found.ood,
        "alpha": settings.alpha,
        "energy_threshold": calibration.threshold(settings.alpha),
        "calibration_molecules": count,
        "rows_of_this_run": totals.sums["rows"],
        "encoded": totals.sums["encoded"],
        "seconds": progress.seconds,
        "molecules_per_second": progress.rate,
        "stages": stages.summary(),
        "peak_gpu_memory_gb": float(totals.peaks["gpu_gb"]),
        "peak_resident_memory_gb": float(totals.peaks["resident_gb"]),
        "driver_peak_resident_memory_gb": telemetry.peak_resident_memory_gb(),
    }
    write_atomically(f"{settings.output_dir}/run_summary.json", json_bytes(summary))
    return summary


def calibrated(checkpoint: Checkpoint, encoder: TrainSettings) -> Calibration:
    """Energies of the ID validation molecules, from the store's features or encoded now."""
    molecules = checkpoint.molecules
    if "smiles" not in molecules.column_names:
        raise InputError(
            "the checkpoint does not hold its validation molecules' SMILES, by which scores are "
            "calibrated; train again with this version"
        )
    validation = molecules.filter(pc.equal(molecules["role"], "id_val"))
    encoded = encode(validation, encoder)
    index = encoded.features.index()
    keys = [key for key in validation["key"].to_pylist() if key in index]
    if not keys:
        raise InputError("none of the checkpoint's ID validation molecules can be encoded")
    features = encoded.features.read_features(keys, index)
    return Calibration(np.sort(energies_of(checkpoint.head, features).astype(np.float64)))


def scoring_graph(
    checkpoint: Checkpoint,
    encoder: TrainSettings,
    tables: Tables,
    calibration: Calibration,
    settings: ScoreSettings,
    files: list[DataFile],
    done: frozenset[str],
) -> ray.data.Dataset:
    """The flow from data files to counts of what was written.

    Parameters
    ----------
    encoder : settled.
    done : chunks to leave out.
    """
    pool = tuned_pool(tables, encoder)
    snapshot = ray.put(tables.snapshot(settings.keep_encodings))
    step = Step(snapshot, encoder, new_run_stamp())
    items = [{"number": number, **file._asdict()} for number, file in enumerate(files)]
    chunks = (
        ray.data.from_items(items, override_num_blocks=len(items))
        .map_batches(
            read_chunks,
            fn_kwargs={"settings": settings, "rows": settings.chunk_size, "done": done},
            **ONE_CHUNK,
        )
        .repartition(target_num_rows_per_block=1)
        .map_batches(look_up, fn_kwargs={"step": step}, **ONE_CHUNK)
    )
    return _embedded(chunks, step, pool).map_batches(
        ScoreChunk,
        fn_constructor_kwargs={
            "step": step, "pool": pool, "head": ray.put(checkpoint.head),
            "calibration": calibration, "alpha": settings.alpha,
            "output": absolute(settings.output_dir),
        },
        batch_format="pyarrow",
        batch_size=1,
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        compute=pool.strategy(),
    )  # fmt: skip


def _embedded(chunks: ray.data.Dataset, step: Step, pool: EncoderPool) -> ray.data.Dataset:
    if step.settings.conformer_method != NVMOLKIT:
        return chunks.map_batches(Embed(step).__call__, **ONE_CHUNK)
    return chunks.map_batches(
        Embed, fn_constructor_kwargs={"step": step}, batch_format="pyarrow", batch_size=1,
        num_gpus=pool.gpus, compute=pool.strategy(),
    )  # fmt: skip
