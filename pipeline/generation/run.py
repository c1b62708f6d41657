"""What jobs.generate calls: a table's features and classes to a generator and its samples."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.generation.diffusion.fitting import CURVES, Classed, Fitted, fit_generator
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.diffusion.sampling import draw
from pipeline.generation.figures import learning_figure, map_figure, quality_figure
from pipeline.generation.measures import CONTROLS, measure
from pipeline.generation.packages import package
from pipeline.generation.quality import LOOSE, Gathered, Judge, gather
from pipeline.generation.settings import GenerateSettings
from pipeline.generation.source import Source, read_source
from pipeline.molecules.rejected import write_rejected
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, parquet_bytes, write_atomically
from pipeline.runtime.nodes.cluster import device_of, start_ray
from pipeline.store.keyed_table import features_table

GENERATOR, SAMPLES, SUMMARY = "generator", "generated.parquet", "generation_summary.json"
DRAWN = 2**31 + 1  # beside the seed: noise that no step of training has
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
    for name in ("diffusers", "prdc"):
        package(name)
    source = read_source(settings)
    start_ray()
    device, folder = device_of(settings.device), settings.output_dir
    write_rejected(source.rejected, folder)
    parts = cut(source, settings)
    fitted = fit_generator(
        parts.train, parts.scale, source.names, settings, folder, device, settings.precision,
        fresh=parts.fresh,
    )  # fmt: skip
    generator = fitted.generator
    generator.write(f"{folder}/{GENERATOR}")
    judges = judges_of(generator, parts, settings.quality_neighbours)
    gathered = gather(
        judges,
        generator.scaling.standard,
        [settings.num_samples * wanted for wanted in _asked(source.names, settings)],
        lambda classes, attempt: draw(
            generator, classes, (settings.seed, DRAWN, attempt), device, fitted.precision
        ),
        threshold=settings.quality_threshold,
        multiplier=settings.sample_multiplier,
        attempts=settings.max_attempts,
    )
    made = dict(zip(source.names, gathered))
    _write_samples(made, folder)
    summary = {
        **_counts(source, parts, settings),
        "generator": _of_generator(fitted, parts, device),
        "classes": {name: each.counts() for name, each in made.items()},
        "measures": _measured(generator, parts, made, settings.seed),
        "settings": asdict(settings),
    }
    write_atomically(f"{folder}/{SUMMARY}", json_bytes(summary))
    _figures(fitted, parts, judges, made, settings)
    fitted.forget()
    return summary


def cut(source: Source, settings: GenerateSettings) -> Parts:
    """The rows of each part, by a seeded draw within each class; every part has some of each.

    Rows with the same features are in one part: else held-out rows would be known.

    Raises
    ------
    InputError
        If a class has too few different rows.
    """
    rng = np.random.default_rng([settings.seed, len(source.classes)])
    same = source.same
    part_of = np.full(same.max() + 1, -1)  # of each different row
    for number, name in enumerate(source.names):
        mine = same[source.classes == number]
        free = rng.permutation(np.unique(mine[part_of[mine] < 0]))
        half = max(2, round(len(free) * settings.holdout_share / 2))
        if len(free) < 3 * half:
            raise InputError(
                f"{settings.data_file}: class {name!r} has {len(np.unique(mine))} different rows, "
                f"too few to learn from and to hold {2 * half} out; see --holdout_share"
            )
        part_of[free] = 0
        part_of[free[:half]], part_of[free[half : 2 * half]] = 1, 2
    part = part_of[same]
    made = (Classed(source.features[part == p], source.classes[part == p]) for p in range(3))
    return Parts(*made)


def judges_of(generator: Generator, parts: Parts, neighbours: int) -> list[Judge]:
    """What measures candidates of each class, in standardised features as samples have them."""
    of = generator.scaling.kept
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
        if not each.wanted:
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
        if not each.wanted:
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
        found[name] = measure(fresh, others, seed, each.wanted)
    return found


def _figures(
    fitted: Fitted, parts: Parts, judges: list[Judge], made: dict[str, Gathered],
    settings: GenerateSettings,
) -> None:  # fmt: skip
    generator, folder = fitted.generator, settings.output_dir
    of = generator.scaling.kept
    learning_figure(fitted.outcome["history"], fitted.loss_by_time, f"{folder}/learning.png")
    drawn = {name: each for name, each in made.items() if each.wanted}
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
        "rows_that_repeat_another": len(source.ids) - int(source.same.max() + 1),
        "rejected": source.rejected.num_rows,
        "rows_by_class": by_class,
    }


def _of_generator(fitted: Fitted, parts: Parts, device: str) -> dict[str, Any]:
    names = (
        "parameters", "best_step", "resumed_after_step", "train_time_seconds",
        "peak_gpu_memory_train_gb", "peak_resident_memory_train_gb",
    )  # fmt: skip
    scaling = fitted.generator.scaling
    return {
        "device": device,
        "precision": fitted.precision,
        "learned_columns": scaling.width,
        "variance_kept": scaling.kept_share(parts.scale.features),
        "curves": CURVES,
        "losses": fitted.losses,
        "better_than_linear": fitted.better_than_linear,
        "loss_by_time": fitted.loss_by_time,
        **{name: fitted.outcome[name] for name in names},
    }
