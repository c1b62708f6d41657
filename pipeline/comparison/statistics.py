"""Frozen against finetuned encoder over several seeds: statistics, and molecules that moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

from pipeline.comparison.run_folders import ARMS, Run, align
from pipeline.evaluation.metrics import METRICS, metrics_of, paired_interval

BETTER = {"auroc": "higher", "aupr": "higher", "fpr95": "lower"}
COSTS = (
    "encoding_time_seconds",
    "train_time_seconds",
    "avg_epoch_time_seconds",
    "eval_time_seconds",
    "peak_gpu_memory_encoding_gb",
    "peak_gpu_memory_train_gb",
    "peak_gpu_memory_eval_gb",
    "peak_resident_memory_encoding_gb",
    "peak_resident_memory_train_gb",
    "peak_resident_memory_eval_gb",
)


@dataclass(frozen=True)
class Mover:
    """A test molecule and its percentile (0 to 1) among all test energies, in either arm.

    `gain` is the change in the right direction: up for OOD, down for ID.
    """

    id: str
    smiles: str
    is_ood: bool
    before: float
    after: float
    gain: float


def summarize(
    runs: Sequence[Run],
    failed: Mapping[tuple[str, int], str],
    *,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, Any]:
    """What the comparison found, ready for JSON.

    Parameters
    ----------
    runs : finished runs, in any order; an arm may have none.
    failed : reason by arm and seed.
    bootstrap_samples, seed : of the improvement's intervals.

    Returns
    -------
    dict
        `seeds`, `test_molecules`, `arms` (of each its `metrics` and `costs`), `improvement`
        (finetuned − frozen; None if no seed has both arms), `failed`, `bootstrap_samples`.
        Times are summed over the encodings of a run (training and test molecules), peaks are
        the highest of them.

    Raises
    ------
    InputError
        As `align`.
    """
    runs = sorted(align(runs), key=lambda run: run.seed)
    of_arm = {arm: [run for run in runs if run.arm == arm] for arm in ARMS}
    is_ood = runs[0].is_ood if runs else np.zeros(0, bool)
    return {
        "seeds": sorted({run.seed for run in runs} | {number for _, number in failed}),
        "test_molecules": {"id": int((~is_ood).sum()), "ood": int(is_ood.sum())},
        "arms": {
            arm: {
                "metrics": {name: _metric(of_arm[arm], name) for name in METRICS},
                "costs": _costs(of_arm[arm]),
            }
            for arm in ARMS
        },
        "improvement": _improvement(of_arm, bootstrap_samples, seed),
        "failed": [
            {"arm": arm, "seed": number, "reason": reason}
            for (arm, number), reason in sorted(failed.items())
        ],
        "bootstrap_samples": bootstrap_samples,
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation; None where there are too few values for it."""
    return {
        "mean": float(np.mean(values)) if len(values) else None,
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def movers(
    frozen: Sequence[Run], finetuned: Sequence[Run], count: int
) -> tuple[list[Mover], list[Mover]]:
    """The test molecules that gained most and those that lost most by finetuning.

    Parameters
    ----------
    frozen, finetuned : the arms' runs; percentiles are averaged over each arm's seeds.
    count : at most so many of either; a molecule that stayed where it was is in neither.

    Raises
    ------
    InputError
        As `align`.
    """
    if not frozen or not finetuned:
        return [], []
    runs = align([*frozen, *finetuned])
    first, n = runs[0], len(runs[0].ids)
    ranks = np.array([scipy.stats.rankdata(run.energies) for run in runs])
    percentiles = (ranks - 1) / max(n - 1, 1)
    before = percentiles[: len(frozen)].mean(axis=0)
    after = percentiles[len(frozen) :].mean(axis=0)
    gain = np.where(first.is_ood, after - before, before - after)
    rows = zip(first.ids, first.smiles, first.is_ood.tolist(), before.tolist(), after.tolist(),
               gain.tolist())  # fmt: skip
    ordered = sorted((Mover(*row) for row in rows), key=lambda mover: -mover.gain)
    gained = [mover for mover in ordered if mover.gain > 0]
    lost = [mover for mover in reversed(ordered) if mover.gain < 0]
    return gained[:count], lost[:count]


def _metric(runs: Sequence[Run], name: str) -> dict[str, Any]:
    values = {str(run.seed): run.results[name] for run in runs}
    return {**spread(list(values.values())), "values": values}


def _costs(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    found = {key: [c for c in (_cost(run, key) for run in runs) if c is not None] for key in COSTS}
    return {
        key: {"mean": float(np.mean(values)), "max": float(max(values))}
        for key, values in found.items()
        if values
    }


def _cost(run: Run, key: str) -> float | None:
    values = [found[key] for found in (run.stats, run.results) if found.get(key) is not None]
    if not values:
        return None
    return max(values) if key.startswith("peak_") else sum(values)


def _improvement(of_arm: dict[str, list[Run]], samples: int, seed: int) -> dict[str, Any] | None:
    frozen, finetuned = ({run.seed: run for run in of_arm[arm]} for arm in ARMS)
    seeds = sorted(frozen.keys() & finetuned.keys())
    if not seeds:
        return None
    pairs = [(frozen[seed], finetuned[seed]) for seed in seeds]
    intervals = _paired_intervals(pairs, samples, seed)
    improvement = {}
    for name in METRICS:
        values = [after.results[name] - before.results[name] for before, after in pairs]
        improvement[name] = {
            "mean": float(np.mean(values)),
            "ci95": intervals[name],
            "better": BETTER[name],
            "seeds": seeds,
            "values": {str(seed): value for seed, value in zip(seeds, values)},
        }
    return improvement


def _paired_intervals(
    pairs: Sequence[tuple[Run, Run]], samples: int, seed: int
) -> dict[str, list[float]]:
    """95 % percentile intervals of the metrics' mean difference over (frozen, finetuned) runs."""
    measured = [tuple(metrics_of(run.energies) for run in pair) for pair in pairs]

    def statistic(id_rows: np.ndarray, ood_rows: np.ndarray) -> np.ndarray:
        gains = [after(id_rows, ood_rows) - before(id_rows, ood_rows) for before, after in measured]
        return np.mean(gains, axis=0)

    interval = paired_interval(pairs[0][0].is_ood, statistic, samples=samples, seed=seed)
    return {
        name: [float(low), float(high)]
        for name, low, high in zip(METRICS, interval.low, interval.high)
    }
