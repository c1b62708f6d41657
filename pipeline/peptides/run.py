"""What jobs.generate_peptides calls: peptides with classes to a generator and what it makes."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.encoding.plan import EncodingPlan
from pipeline.generation.diffusion.scaling import Scaling
from pipeline.generation.packages import package
from pipeline.molecules.rejected import write_rejected
from pipeline.peptides.activity import NOT_MADE, activity, has_macrel
from pipeline.peptides.controls import GENERATED, HELD_OUT, SHUFFLED, controls_of, verdict
from pipeline.peptides.diffusion.fitting import CURVES, FittedPeptides, fit_peptides
from pipeline.peptides.diffusion.residues import Peptides
from pipeline.peptides.diffusion.sampling import Drawn, draw_peptides
from pipeline.peptides.figures import learning_figure, measures_figure
from pipeline.peptides.holdout import Cut, cut
from pipeline.peptides.judged import Judged, composition_counts, counted, measured
from pipeline.peptides.latents import parts_of, structures_of
from pipeline.peptides.nearest import clusters, nearest
from pipeline.peptides.output import repeats_of, write_peptides
from pipeline.peptides.settings import GeneratePeptidesSettings
from pipeline.peptides.source import PeptideSource, read_source
from pipeline.runtime.files import json_bytes, write_atomically

GENERATOR, SUMMARY = "generator", "peptides_summary.json"
DRAWN, CONTROLS = 2**31 + 1, 2**31 + 2  # beside the seed: noise that no step of training has

log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """What a training is of.

    Attributes
    ----------
    clusters : (n,) the number of each of the source's peptides' cluster.
    structures : of each peptide; None without structures.
    train, held_out : scaled by `scaling`.
    """

    plan: EncodingPlan
    source: PeptideSource
    clusters: np.ndarray
    cut: Cut
    structures: list[np.ndarray | None] | None
    train: Peptides
    held_out: Peptides
    scaling: Scaling


def run_peptides(settings: GeneratePeptidesSettings) -> dict[str, Any]:
    """Train a generator of peptides, draw some of each class, judge them, write all of it.

    Returns
    -------
    dict
        The content of peptides_summary.json. In the output folder lie also the generator
        (generator/), its peptides (generated.fasta, generated.parquet), what could not be used
        (rejected.parquet), the curves (CSV) and figures.

    Raises
    ------
    InputError
        If the file or a setting cannot be used.
    """
    prepared = prepare(settings)
    plan, source, parts = prepared.plan, prepared.source, prepared.cut
    folder, device = settings.output_dir, plan.device
    write_rejected(source.rejected, folder, kind=source.kind)
    fitted = fit_peptides(
        prepared.train, prepared.held_out, source.names, prepared.scaling, settings, folder,
        device, plan.settings.precision, source.latents,
    )  # fmt: skip
    fitted.generator.write(f"{folder}/{GENERATOR}")
    drawn = _drawn(fitted, settings, device)
    training = [source.sequences[row] for row in parts.train]
    judged = {name: _judged(each.sequences, training) for name, each in drawn.items()}
    write_peptides(_rows(drawn, judged, source, parts), folder)
    measures = {name: _measures(name, each, prepared, settings) for name, each in judged.items()}
    summary = {
        **_counts(prepared, settings),
        "generator": _of_generator(fitted, device),
        "macrel": "made" if has_macrel() else NOT_MADE,
        "peptides": {
            name: counted(each.sequences, training, settings.min_length, settings.max_length)
            for name, each in drawn.items()
        },
        "measures": measures,
        "nearer_than_controls": {name: verdict(each) for name, each in measures.items()},
        "settings": asdict(settings),
    }
    write_atomically(f"{folder}/{SUMMARY}", json_bytes(summary))
    learning_figure(fitted.outcome["history"], f"{folder}/learning.png")
    measures_figure(summary["measures"], f"{folder}/measures.png")
    fitted.forget()
    return summary


def prepare(settings: GeneratePeptidesSettings) -> Prepared:
    """Read a file's peptides, cut them, and have their latents. InputError as `run_peptides`."""
    for name in ("diffusers", "rapidfuzz"):
        package(name, "peptides")
    table = _structure_table(settings)
    plan, source = read_source(settings)
    groups = clusters(source.sequences, settings.holdout_identity)
    parts = cut(source.classes, groups, source.names, settings.holdout_share, settings.seed)
    structures = structures_of(table, source, parts, settings.shuffle_structures, settings.seed)
    made = parts_of(source, parts, structures, settings.seed)
    return Prepared(plan, source, groups, parts, structures, *made)


def _structure_table(settings: GeneratePeptidesSettings) -> Any:
    if settings.structure_table is None:
        return None
    from pipeline.folding.tables import opened

    return opened(settings.structure_table)


def _drawn(
    fitted: FittedPeptides, settings: GeneratePeptidesSettings, device: str
) -> dict[str, Drawn]:
    """Peptides by class; classes and lengths as often as in training."""
    generator, count = fitted.generator, settings.num_samples
    made = {}
    for number, name in enumerate(generator.classes):
        if settings.classes is None or name in settings.classes:
            seed = (settings.seed, DRAWN, number)
            lengths = generator.lengths_of(name, count, np.random.default_rng(list(seed)))
            classes = np.full(count, number)
            made[name] = draw_peptides(generator, classes, lengths, seed, device, fitted.precision)
            log.info("%s peptides of class %s drawn", f"{count:,}", name)
    return made


def _judged(sequences: list[str], training: list[str]) -> Judged:
    return Judged(sequences, nearest(sequences, training), activity(sequences))


def _measures(
    name: str, made: Judged, prepared: Prepared, settings: GeneratePeptidesSettings
) -> dict[str, dict[str, Any]]:
    """Measures of a class's peptides and of its controls, of equally many each."""
    source, parts = prepared.source, prepared.cut
    number = source.names.index(name)
    of_train, held_out = (rows[source.classes[rows] == number] for rows in parts)
    texts = [source.sequences[row] for row in of_train]
    training = [source.sequences[row] for row in parts.train]
    rng = np.random.default_rng([settings.seed, CONTROLS, number])
    size = min(len(held_out), len(made.sequences))
    held = rng.permutation(held_out)[:size]
    generated = made.take(rng.permutation(len(made.sequences))[:size])
    counts = composition_counts(texts).sum(axis=0)
    controls = controls_of(
        [source.sequences[row] for row in held], [len(text) for text in generated.sequences],
        counts / counts.sum(), (settings.seed, CONTROLS, number, 1),
    )  # fmt: skip
    found = {GENERATED: generated}
    found |= {control: _judged(sequences, training) for control, sequences in controls.items()}
    clusters = dict.fromkeys((HELD_OUT, SHUFFLED), prepared.clusters[held])
    return {
        sample: {
            **counted(each.sequences, training, settings.min_length, settings.max_length),
            **measured(each, texts, settings.seed, clusters.get(sample)),
        }
        for sample, each in found.items()
    }


def _rows(
    drawn: dict[str, Drawn], judged: dict[str, Judged], source: PeptideSource, parts: Cut
) -> pa.Table:
    """All peptides that were drawn: none is left out for what it is."""
    training = [source.sequences[row] for row in parts.train]
    known, tables, number = set(training), [], 0
    for name, each in drawn.items():
        sequences, scores = each.sequences, judged[name]
        count = len(sequences)
        made = activity_columns(scores, count)
        tables.append(
            pa.table(
                {
                    "id": [f"generated_{number + place + 1}" for place in range(count)],
                    "sequence": pa.array(sequences, pa.string()),
                    "class": pa.array([name] * count, pa.string()),
                    "confidence": pa.array(each.confidence, pa.float32()),
                    "nearest_identity": pa.array(scores.nearest.identity, pa.float32()),
                    "nearest": [training[place] for place in scores.nearest.place],
                    "copy_of_training": [text in known for text in sequences],
                    "repeats_another": repeats_of(sequences),
                    **made,
                }
            )
        )
        number += count
    return pa.concat_tables(tables)


def activity_columns(scores: Judged, count: int) -> dict[str, pa.Array]:
    """Macrel's probabilities; null without Macrel."""
    names = ("amp_probability", "hemolytic_probability")
    if scores.activity is None:
        return {name: pa.nulls(count, pa.float32()) for name in names}
    return {name: pa.array(part, pa.float32()) for name, part in zip(names, scores.activity)}


def _counts(prepared: Prepared, settings: GeneratePeptidesSettings) -> dict[str, Any]:
    source, parts, groups = prepared.source, prepared.cut, prepared.clusters
    structures = prepared.structures
    stages = source.rejected["stage"].to_pylist()
    by_class = {
        name: {
            part: int((source.classes[rows] == number).sum())
            for part, rows in parts._asdict().items()
        }
        for number, name in enumerate(source.names)
    }
    return {
        "dataset": settings.dataset or settings.data_file,
        "latents": source.latents,
        "reading": list(source.notes),
        "rows_in": source.rows_in,
        "rows_used": len(source.sequences),
        "rejected": len(stages),
        "rejected_by_stage": {stage: stages.count(stage) for stage in sorted(set(stages))},
        "peptides_by_class": by_class,
        "clusters": int(groups.max() + 1),
        "largest_cluster": int(np.bincount(groups).max()),
        "held_out": "whole clusters of peptides that are linked by identity of at least "
        f"{settings.holdout_identity:g}",
        "with_structure": structures and sum(each is not None for each in structures),
        "structures_shuffled": settings.shuffle_structures,
    }


def _of_generator(fitted: FittedPeptides, device: str) -> dict[str, Any]:
    names = (
        "parameters", "best_step", "resumed_after_step", "train_time_seconds",
        "peak_gpu_memory_train_gb", "peak_resident_memory_train_gb",
    )  # fmt: skip
    at_best = {k: v for k, v in fitted.at_best.items() if k not in ("step", "seconds")}
    return {
        "device": device,
        "precision": fitted.precision,
        "latent_columns": fitted.generator.scaling.width,
        "noise_shift": fitted.generator.settings.noise_shift,
        "curves": CURVES,
        "at_best_step": at_best,
        "better_than_linear": fitted.better_than_linear,
        "waiting_share": fitted.waiting_share,
        **{name: fitted.outcome[name] for name in names},
    }
