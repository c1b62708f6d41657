"""Binding sites residue by residue, by the classifier of jobs.augment on several features.

Features: ESM-2's of each residue, the residue and its neighbours as letters (one-hot), shares of
letters around it and in its chain; of PPI sites also the windows of PSSM, HMM and DSSP of
bench.augmentation. The threshold comes from validation proteins; intervals are over test proteins.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.augmentation import residue_rows, window_features, windows
from pipeline.augmentation.fits import Fit, fit_one
from pipeline.augmentation.intervals import RANGE, difference
from pipeline.augmentation.methods import PLAIN, wanted_rows
from pipeline.augmentation.run import standardised
from pipeline.augmentation.scores import METRICS
from pipeline.augmentation.settings import AugmentSettings
from pipeline.augmentation.table import read_table
from pipeline.encoders import load_encoder
from pipeline.molecules.features.kmers import residue_numbers
from pipeline.molecules.sequences import STANDARD

SEED = 42  # of the validation proteins, and of subsets
WIDE = 7  # residues on either side, of compositions
LEARN = {"dna": "DNA_Train_573", "ppi": "Train_335"}
TESTS = {"dna": ["DNA_Test_129", "DNA_Test_181"], "ppi": ["Test_60", "Test_315"]}
ONE_HOT, COMPOSITION, PROFILES = "one-hot windows", "composition", "PSSM, HMM, DSSP windows"
Features = Callable[[pa.Table], list[np.ndarray]]


def one_hot(sequence: str) -> np.ndarray:
    """Letters (n, 20), 0 or 1 float32."""
    return np.eye(len(STANDARD), dtype=np.float32)[residue_numbers(sequence)]


def one_hot_windows(chains: pa.Table) -> list[np.ndarray]:
    """Each residue's letter and those of its neighbours (n, 140)."""
    return [windows(one_hot(text)) for text in chains["sequence"].to_pylist()]


def compositions(chains: pa.Table) -> list[np.ndarray]:
    """Shares of letters (n, 40): around each residue, and in its whole chain."""
    found = []
    for text in chains["sequence"].to_pylist():
        letters = one_hot(text)
        sums = np.pad(letters, ((WIDE + 1, WIDE), (0, 0))).cumsum(axis=0)
        around = sums[2 * WIDE + 1 :] - sums[: len(letters)]
        around /= around.sum(axis=1, keepdims=True)
        found.append(np.hstack([around, np.broadcast_to(letters.mean(axis=0), letters.shape)]))
    return found


def esm_residues(chains: pa.Table, weights: str) -> list[np.ndarray]:
    """ESM-2's features of each residue."""
    encoder = load_encoder("esm", weights=weights, device="cpu")
    return encoder.encode_residues(chains["sequence"].to_pylist())


def sites_of(task: str, path: Path, given: argparse.Namespace) -> dict[str, Any]:
    """What every feature finds of a task's sites; kept in the folder.

    Parameters
    ----------
    task : "dna" or "ppi".
    """
    chains = _subset(pq.read_table(path), given.proteins)
    features: dict[str, Features] = {
        **{f"esm, {n}": partial(esm_residues, weights=model) for n, model in given.models.items()},
        ONE_HOT: one_hot_windows,
        COMPOSITION: compositions,
    }
    if "features" in chains.column_names:
        features[PROFILES] = window_features
    fits = {name: _fitted(task, name, chains, make, given) for name, make in features.items()}
    found: dict[str, Any] = {"counts": _counts(chains), "tests": {}}
    for test in TESTS[task]:
        own = fits[f"esm, {given.weights[0]}"]
        found["tests"][test] = {
            name: {
                **{metric: _interval(each, test, metric) for metric in METRICS},
                "esm less this": None if each is own else _gains(own, each, test),
            }
            for name, each in fits.items()
        }
    return found


def _subset(chains: pa.Table, most: int | None) -> pa.Table:
    """At most so many chains of each split, drawn at random."""
    if most is None:
        return chains
    rng, splits = np.random.default_rng(SEED), np.array(chains["split"].to_pylist())
    rows = [rng.permutation(np.flatnonzero(splits == name))[:most] for name in np.unique(splits)]
    return chains.take(np.sort(np.concatenate(rows)))


def _counts(chains: pa.Table) -> dict[str, list[int]]:
    """Chains, residues and sites of each split."""
    found: dict[str, list[int]] = {}
    for split, labels in zip(chains["split"].to_pylist(), chains["labels"].to_pylist()):
        each = found.setdefault(split, [0, 0, 0])
        each[:] = each[0] + 1, each[1] + len(labels), each[2] + labels.count("1")
    return found


def _fitted(
    task: str, name: str, chains: pa.Table, make: Features, given: argparse.Namespace
) -> dict[int, Fit]:
    """By seed the classifier's results on features of a name; kept in the folder."""
    folder = given.out / f"{task}_{given.proteins or 'all'}" / name.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    settings = AugmentSettings(
        data_file=str(folder / "rows.parquet"), features_column="features", class_column="site",
        split_column="split", group_column="protein", test_split=TESTS[task], rare_class="1",
        methods=[], output_dir=str(folder), device="cpu", classifier=given.classifier,
        classifier_epochs=15, classifier_patience=3,
    )  # fmt: skip
    fits, data = {}, None
    for seed in given.classifier_seeds:
        path = folder / f"{given.classifier}_{seed}.json"
        if not path.exists():
            if data is None:
                rows = residue_rows(chains, SEED, _varying(make(chains)), LEARN[task])
                pq.write_table(rows, settings.data_file)
                table = read_table(settings)
                wanted = wanted_rows(table.train.is_rare, settings.rare_share)
                data = standardised(table, wanted, None)
                (folder / "rows.parquet").unlink()
            fit = fit_one(data, PLAIN, seed, settings)
            drawn = {test: each.tolist() for test, each in fit.drawn.items()}
            path.write_text(json.dumps({**vars(fit), "drawn": drawn}, default=float))
        fits[seed] = _read(json.loads(path.read_text()))
    return fits


def _varying(made: list[np.ndarray]) -> list[np.ndarray]:
    """Without columns that are the same in all residues, as some are in a few chains."""
    every = np.concatenate(made)
    kept = np.ptp(every, axis=0) > 0
    return [each[:, kept] for each in made]


def _read(kept: dict[str, Any]) -> Fit:
    drawn = {test: np.array(each, float) for test, each in kept["drawn"].items()}
    return Fit(**{**kept, "drawn": drawn})


def _interval(fits: Mapping[int, Fit], test: str, metric: str) -> list[float]:
    """Mean over seeds, and its 95 % interval over resamples of proteins."""
    place = METRICS.index(metric)
    drawn = np.mean([fit.drawn[test][:, place] for fit in fits.values()], axis=0)
    value = float(np.mean([fit.values[test][metric] for fit in fits.values()]))
    return [value, *map(float, np.nanpercentile(drawn, RANGE))]


def _gains(one: Mapping[int, Fit], other: Mapping[int, Fit], test: str) -> dict[str, list[float]]:
    """By metric how far one is above the other, and the interval over resamples of proteins."""
    values = {
        metric: [(one[seed].values[test][metric], other[seed].values[test][metric]) for seed in one]
        for metric in METRICS
    }
    drawn = ({seed: fit.drawn[test] for seed, fit in of.items()} for of in (one, other))
    made = difference(*drawn, values)
    return {metric: [each["mean"], *each["ci95"]] for metric, each in made.items()}
