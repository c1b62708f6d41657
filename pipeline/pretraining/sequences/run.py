"""Pretraining on sequences: proteins in memory, then an ESM-2 of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from pipeline.encoders.unimol.precision import PRECISIONS
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.kinds import SEQUENCE
from pipeline.molecules.rejected import write_rejected
from pipeline.molecules.sources import parse_rows
from pipeline.pretraining.curves import SEQUENCES
from pipeline.pretraining.sequences.baselines import asked_of, fit_baselines, told_by_model
from pipeline.pretraining.sequences.crops import HELD_OUT, Proteins
from pipeline.pretraining.sequences.excluded import without_excluded
from pipeline.pretraining.sequences.loop import SequenceJob, SequenceState, judging_corpus
from pipeline.pretraining.sequences.model import config_of, folder_of
from pipeline.pretraining.sequences.similar import held_out
from pipeline.pretraining.settings import PretrainSettings
from pipeline.pretraining.training import (
    Trained,
    check_any_left,
    decided,
    train_on_workers,
    write_outcome,
)
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, write_atomically
from pipeline.runtime.nodes.cluster import device_of, start_ray

MODEL, METRICS = "model", "metrics.json"


def pretrain_on_sequences(settings: PretrainSettings) -> dict[str, Any]:
    """Pretrain on the sequences of a file but those that are excluded, write the weights.

    Returns, raises: see `pipeline.pretraining.run.run_pretraining`.
    """
    check_files(settings)
    start_ray()
    rows = read_rows(settings)
    device = device_of(settings.device)
    settings = decided(settings, device)
    source = parse_rows(rows, settings)
    kept, excluded = without_excluded(source.molecules, settings)
    rejected = pa.concat_tables([source.rejected, excluded])
    write_rejected(rejected, settings.output_dir, kind=SEQUENCE)
    by_key = dict(zip(*(kept[name].to_pylist() for name in ("key", "smiles"))))
    keys = sorted(by_key)  # whatever the order of the rows, a seed draws the same
    sequences = [by_key[key] for key in keys]
    check_any_left(len(sequences), "sequences are left", settings)
    train, holdout = cut(sequences, settings)
    job = SequenceJob(settings, ray.put((train, holdout)))
    trained = train_on_workers(SequenceState, job, settings, device, "lower --tokens_at_once", keys)
    files = folder_of(config_of(settings), trained.tensors, PRECISIONS[settings.weights_precision])
    for name, content in files.items():
        write_atomically(f"{settings.output_dir}/{MODEL}/{name}", content)
    outcome = trained.outcome
    stats = {
        "dataset": settings.dataset or settings.data_file,
        "rows_in": source.rows,
        "rows_kept": kept.num_rows,
        "rejected": rejected.num_rows,
        "excluded": excluded.num_rows,
        "sequences_trained_on": len(train),
        "sequences_held_out": len(holdout),
        "residues_trained_on": int(train.lengths.sum()),
        "residues_held_out": int(holdout.lengths.sum()),
        "device": device,
        "num_workers": settings.num_workers,
        "residues_per_second": outcome["residues_seen"] / max(outcome["train_time_seconds"], 1e-9),
    }
    metrics = _metrics(train, holdout, trained, settings)
    write_atomically(f"{settings.output_dir}/{METRICS}", json_bytes({**stats, **metrics}))
    return write_outcome(trained, {**stats, **metrics}, settings, SEQUENCES)


def cut(sequences: Sequence[str], settings: PretrainSettings) -> tuple[Proteins, Proteins]:
    """Proteins to train on and those held out, by a seeded draw of clusters of similar ones.

    Raises
    ------
    InputError
        If there are no clusters that are small enough.
    """
    apart = held_out(Proteins(sequences), settings.holdout_size, settings.seed)
    if not apart.any():
        raise InputError(
            f"{settings.data_file}: all sequences are similar to others, in clusters that are too "
            f"large to hold out {settings.holdout_size}; raise --holdout_size"
        )
    train = Proteins([s for s, out in zip(sequences, apart) if not out])
    return train, Proteins([s for s, out in zip(sequences, apart) if out])


def _metrics(
    train: Proteins, holdout: Proteins, trained: Trained, settings: PretrainSettings
) -> dict[str, Any]:
    """How well the model, and what knows less, tell the same hidden residues of held-out proteins.

    The model is that of the file: with weights in its precision.
    """
    corpus = judging_corpus(holdout, settings)
    parts, rows = corpus.one_part_each(), np.arange(len(corpus))
    asked = asked_of(corpus.masked(parts, rows, HELD_OUT, settings.tokens_at_once))
    baselines = fit_baselines(train)
    told = {
        "model": told_by_model(trained.outcome["stored"]),
        "untrained": told_by_model(trained.outcome["history"][0]),
        **baselines.told(asked),
    }
    return {
        "residues_told": len(asked.residue),
        "neighbours_prior_counts": baselines.strength,
        "heldout": {name: each._asdict() for name, each in told.items()},
    }
