"""What jobs.augment calls: does data made for a rare class help a classifier to find it?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from pipeline.augmentation.figures import differences_figure
from pipeline.augmentation.fits import Data, Fit, fit_all
from pipeline.augmentation.intervals import difference, undefined, verdict
from pipeline.augmentation.methods import (
    OF_A_GENERATOR,
    PLAIN,
    Training,
    smote_class,
    wanted_rows,
)
from pipeline.augmentation.scores import METRICS
from pipeline.augmentation.settings import AugmentSettings
from pipeline.augmentation.summary_text import summary_text
from pipeline.augmentation.synthetic import Synthetic, make_rows
from pipeline.augmentation.table import Part, Table, read_table
from pipeline.detectors.feature_space import Standard
from pipeline.generation.packages import package
from pipeline.molecules.rejected import write_rejected
from pipeline.runtime.files import json_bytes, write_atomically
from pipeline.runtime.nodes.cluster import device_of, start_ray
from pipeline.runtime.text import records_csv

SUMMARY, TEXT = "augmentation_summary.json", "augmentation_summary.txt"
RESULTS, FIGURE = "augmentation_results.csv", "differences.png"


def run_augmentation(settings: AugmentSettings) -> dict[str, Any]:
    """Train the generator and all classifiers, compare them, write what was found.

    Returns
    -------
    dict
        The content of augmentation_summary.json. In the output folder lie also
        augmentation_summary.txt, augmentation_results.csv (a row a method, seed and test),
        differences.png, rejected.parquet, and of the generator generator/ and learning.png.

    Raises
    ------
    InputError
        If the file or a setting cannot be used.
    """
    started = time.monotonic()
    methods = settings.all_methods
    makes = any(name in OF_A_GENERATOR for name in methods)
    if makes:
        package("diffusers")
    if "smote" in methods:
        smote_class()
    table = read_table(settings)
    start_ray()
    write_rejected(table.rejected, settings.output_dir)
    wanted = wanted_rows(table.train.is_rare, settings.rare_share)
    made = None
    if makes:
        made = make_rows(table, wanted, settings, device_of(settings.device))
    fits = fit_all(standardised(table, wanted, made), settings)
    summary = {
        **_counts(table, settings),
        "rows_to_add": wanted,
        "generator": None if made is None else _of_generator(made),
        "unfinished_classifiers": sum(not fit.finished for fit in fits),
        "classifiers": len(fits),
        "tests": {test: _of_test(fits, test, part) for test, part in table.tests.items()},
        "total_seconds": time.monotonic() - started,
        "settings": asdict(settings),
    }
    _write(summary, fits, settings.output_dir)
    if made is not None:
        made.fitted.forget()
    return summary


def standardised(table: Table, wanted: int, made: Synthetic | None) -> Data:
    """All rows by the mean and deviation of the real training rows."""
    standard = Standard.of(table.train.features)
    rows = {} if made is None else made.rows
    generated = {
        method: {seed: standard(features) for seed, features in by_seed.items()}
        for method, by_seed in rows.items()
    }
    training = Training(standard(table.train.features), table.train.is_rare, wanted, generated)
    return Data(
        training,
        table.val._replace(features=standard(table.val.features)),
        {name: _numbered(part, standard) for name, part in table.tests.items()},
    )


def _numbered(part: Part, standard: Standard) -> Part:
    """A test's rows, standardised, its groups numbered from 0."""
    numbers = np.unique(part.groups, return_inverse=True)[1]
    return Part(standard(part.features), part.is_rare, numbers)


def _counts(table: Table, settings: AugmentSettings) -> dict[str, Any]:
    parts = {"train": table.train, "validation": table.val, **table.tests}
    known = np.unique(table.train.groups)
    return {
        "dataset": settings.dataset or settings.data_file,
        "features": table.described,
        "columns": table.train.features.shape[1],
        "rare_class": table.rare,
        "common_class": table.common,
        "reading": list(table.notes),
        "warnings": list(table.warnings),
        "rows_in": table.rows_in,
        "rows_of_other_splits": table.other_splits,
        "rejected": table.rejected.num_rows,
        "parts": {name: part.counts() for name, part in parts.items()},
        "test_groups_in_training": {
            name: int(np.isin(np.unique(part.groups), known).sum())
            for name, part in table.tests.items()
        },
    }


def _of_generator(made: Synthetic) -> dict[str, Any]:
    fitted = made.fitted
    names = ("parameters", "best_step", "train_time_seconds")
    return {
        **{name: fitted.outcome[name] for name in names},
        "losses": fitted.losses,
        "better_than_linear": fitted.better_than_linear,
        "learned_from": made.learned_from,
        "held_out": made.held_out,
        "by_seed": {str(seed): counts for seed, counts in made.counts.items()},
    }


def _of_test(fits: Sequence[Fit], test: str, part: Part) -> dict[str, Any]:
    """Each method's results on a test, its difference to nothing, and generated rows' to rivals."""
    by: dict[str, dict[int, Fit]] = {}
    for fit in fits:
        by.setdefault(fit.method, {})[fit.seed] = fit
    differs = partial(_difference, test=test, groups=part.counts()["groups_with_rare"])
    methods = {}
    for name, of_seeds in by.items():
        methods[name] = {
            "rows": {str(seed): fit.rows for seed, fit in of_seeds.items()},
            "metrics": {metric: _spread(of_seeds, test, metric) for metric in METRICS},
            "difference": None if name == PLAIN else differs(of_seeds, by[PLAIN]),
        }
    rivals = [name for name in by if name != PLAIN and name not in OF_A_GENERATOR]
    return {
        **part.counts(),
        "resamples_without_a_class": undefined([fit.drawn[test] for fit in fits]),
        "methods": methods,
        "less_rival": {
            name: {rival: differs(by[name], by[rival]) for rival in rivals}
            for name in OF_A_GENERATOR if name in by
        },
    }  # fmt: skip


def _spread(of_seeds: Mapping[int, Fit], test: str, metric: str) -> dict[str, Any]:
    values = {str(seed): fit.values[test][metric] for seed, fit in of_seeds.items()}
    numbers = list(values.values())
    std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return {"mean": float(np.mean(numbers)), "std": std, "values": values}


def _difference(
    one: Mapping[int, Fit], other: Mapping[int, Fit], test: str, groups: int
) -> dict[str, dict[str, Any]]:
    values = {
        metric: [(one[seed].values[test][metric], other[seed].values[test][metric]) for seed in one]
        for metric in METRICS
    }
    found = difference(*({s: fit.drawn[test] for s, fit in of.items()} for of in (one, other)),
                       values)  # fmt: skip
    return {metric: {**each, "verdict": verdict(each, groups)} for metric, each in found.items()}


def _write(summary: dict[str, Any], fits: Sequence[Fit], folder: str) -> None:
    records = [
        {
            "method": fit.method, "seed": fit.seed, "test": test, "rows": fit.rows,
            "epoch": fit.epoch, "finished": fit.finished, "threshold": fit.threshold,
            **{f"validation_{name}": value for name, value in fit.validation.items()},
            **fit.values[test], "seconds": fit.seconds,
        }
        for fit in fits
        for test in fit.values
    ]  # fmt: skip
    write_atomically(f"{folder}/{RESULTS}", records_csv(records))
    write_atomically(f"{folder}/{TEXT}", ("\n".join(summary_text(summary)) + "\n").encode())
    if len(summary["tests"][next(iter(summary["tests"]))]["methods"]) > 1:
        differences_figure(summary["tests"], f"{folder}/{FIGURE}")
    write_atomically(f"{folder}/{SUMMARY}", json_bytes(summary))
