"""What jobs.generate calls: a table's features and classes to a generator and its samples."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.generation.diffusion.fitting import CURVES, Classed, fit_generator
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.diffusion.noise import diffusers
from pipeline.generation.diffusion.sampling import draw
from pipeline.generation.figures import learning_figure, map_figure, quality_figure
from pipeline.generation.measures import CONTROLS, measure
from pipeline.generation.quality import LOOSE, Gathered, Judge, gather
from pipeline.generation.settings import GenerateSettings
from pipeline.generation.source import Source, read_source
from pipeline.molecules.rejected import write_rejected
from pipeline.runtime.cluster import device_of, start_ray
from pipeline.runtime.files import json_bytes, parquet_bytes, write_atomically
from pipeline.store.keyed_table import features_table

GENERATOR, SAMPLES, SUMMARY = "generator", "generated.parquet", "generation_summary.json"
DRAWN = 1  # beside the seed: noise that no step of training has
SECOND = "second real sample"
BEFORE, AFTER, LOOSELY = "candidates", "returned", f"quality at least {LOOSE:g}"


class Parts(NamedTuple):
    """A table's rows by what they are for.

    Attributes
    ----------
    train : the generator learns from them.
    scale : the scale of quality; they choose the step too.
    fresh : nothing but measures sees them.
    """

    train: Classed
    scale: Classed
    fresh: Classed


def run_generation(settings: GenerateSettings) -> dict[str, Any]:
    """Train a generator, draw samples, judge them, write all of it.

    Returns
    -------
    dict
        The content of generation_summary.json. In the output folder lie also the generator
        (generator/), its samples (generated.parquet), what could not be read (rejected.parquet),
        the curves (CSV) and figures.

    Raises
    ------
    InputError
        If the file or a setting cannot be used.
    """
    diffusers()
    source = read_source(settings)
    start_ray()
    device = device_of(settings.device)
    write_rejected(source.rejected, settings.output_dir)
    parts = cut(source, settings)
    generator, outcome = fit_generator(
        parts.train, parts.scale, source.names, settings, settings.output_dir, device,
        settings.precision,
    )  # fmt: skip
    generator.write(f"{settings.output_dir}/{GENERATOR}")
    judges = judges_of(generator, parts, settings.quality_neighbours)
    gathered = gather(
        judges,
        generator.scaling.standard,
        [settings.num_samples * wanted for wanted in _asked(source.names, settings)],
        lambda classes, attempt: draw(
            generator, classes, (settings.seed, DRAWN, attempt), device, outcome["precision"]
        ),
        threshold=settings.quality_threshold,
        multiplier=settings.sample_multiplier,
        attempts=settings.max_attempts,
    )
    made = dict(zip(source.names, gathered))
    _write_samples(made, settings.output_dir)
    measured = _measured(generator, parts, made, settings.seed)
    _figures(generator, parts, judges, made, outcome, settings)
    summary = {
        **_counts(source, parts, settings),
        "generator": _of_generator(generator, outcome, device),
        "classes": {name: each.counts() for name, each in made.items()},
        "measures": measured,
        "settings": asdict(settings),
    }
    write_atomically(f"{settings.output_dir}/{SUMMARY}", json_bytes(summary))
    return summary


def cut(source: Source, settings: GenerateSettings) -> Parts:
    """The rows of each part, by a seeded draw within each class; every part has some of each."""
    rng = np.random.default_rng([settings.seed, len(source.classes)])
    part = np.zeros(len(source.classes), int)
    for number in range(len(source.names)):
        rows = rng.permutation(np.flatnonzero(source.classes == number))
        half = max(2, round(len(rows) * settings.holdout_share / 2))
        part[rows[:half]], part[rows[half : 2 * half]] = 1, 2
    made = (Classed(source.features[part == p], source.classes[part == p]) for p in range(3))
    return Parts(*made)


def judges_of(generator: Generator, parts: Parts, neighbours: int) -> list[Judge]:
    """What measures candidates of each class, in standardised features."""
    of = generator.scaling.standard
    return [
        Judge.fit(of(parts.train.of(number)), of(parts.scale.of(number)), neighbours)
        for number in range(len(generator.classes))
    ]


def _asked(names: tuple[str, ...], settings: GenerateSettings) -> list[bool]:
    return [settings.classes is None or name in settings.classes for name in names]


def _write_samples(made: dict[str, Gathered], folder: str) -> None:
    """The returned samples: `id`, `class`, `quality`, `features`."""
    tables = []
    for name, each in made.items():
        if not each.judged:
            continue
        chosen = each.returned
        ids = [f"generated {name} {number}" for number in range(int(chosen.sum()))]
        rows = features_table(ids, each.features[chosen]).rename_columns(["id", "features"])
        rows = rows.add_column(1, "class", pa.array([name] * len(ids), pa.string()))
        tables.append(rows.add_column(2, "quality", pa.array(each.quality[chosen])))
    write_atomically(f"{folder}/{SAMPLES}", parquet_bytes(pa.concat_tables(tables)))


def _measured(
    generator: Generator, parts: Parts, made: dict[str, Gathered], seed: int
) -> dict[str, dict[str, Any]]:
    """By class and sample, its measures against real rows that nothing else has seen."""
    of, found = generator.scaling.standard, {}
    for number, (name, each) in enumerate(made.items()):
        if not each.judged:
            continue
        features, train = of(each.features), of(parts.train.of(number))
        fresh = of(parts.fresh.of(number))
        others = {
            SECOND: of(parts.scale.of(number)),
            BEFORE: features,
            LOOSELY: features[each.passing(LOOSE)],
            AFTER: features[each.returned],
            **{control: make(train, len(fresh), seed) for control, make in CONTROLS.items()},
        }
        found[name] = measure(fresh, others, seed)
    return found


def _figures(
    generator: Generator, parts: Parts, judges: list[Judge], made: dict[str, Gathered],
    outcome: dict[str, Any], settings: GenerateSettings,
) -> None:  # fmt: skip
    folder, of = settings.output_dir, generator.scaling.standard
    learning_figure(outcome["history"], outcome["loss_by_time"], f"{folder}/learning.png")
    drawn = {name: each for name, each in made.items() if each.judged}
    numbers = {name: generator.classes.index(name) for name in drawn}
    real = {name: of(parts.fresh.of(number)) for name, number in numbers.items()}
    quality_figure(
        {name: each.quality for name, each in drawn.items()},
        {name: judges[numbers[name]](rows).quality for name, rows in real.items()},
        settings.quality_threshold,
        f"{folder}/quality.png",
    )
    map_figure(
        {name: of(parts.train.of(number)) for name, number in numbers.items()},
        {name: of(each.features[each.returned]) for name, each in drawn.items()},
        {name: of(each.features[~each.passing(each.threshold)]) for name, each in drawn.items()},
        settings.seed,
        f"{folder}/map.png",
    )


def _counts(source: Source, parts: Parts, settings: GenerateSettings) -> dict[str, Any]:
    by_class = {
        name: {part: int((rows.classes == number).sum()) for part, rows in parts._asdict().items()}
        for number, name in enumerate(source.names)
    }
    return {
        "dataset": settings.dataset or settings.data_file,
        "features": source.described,
        "columns": source.features.shape[1],
        "reading": list(source.notes),
        "rows_in": source.rows_in,
        "rows_used": len(source.ids),
        "rows_of_other_splits": source.other_splits,
        "rejected": source.rejected.num_rows,
        "rows_by_class": by_class,
    }


def _of_generator(generator: Generator, outcome: dict[str, Any], device: str) -> dict[str, Any]:
    names = (
        "parameters", "best_step", "best_losses", "better_than_linear", "resumed_after_step",
        "train_time_seconds", "precision", "peak_gpu_memory_train_gb",
        "peak_resident_memory_train_gb", "loss_by_time",
    )  # fmt: skip
    return {
        "device": device,
        "learned_columns": generator.scaling.width,
        "variance_kept": generator.scaling.explained,
        "curves": CURVES,
        **{name: outcome[name] for name in names},
    }
