"""Resamples of groups, the same for every classifier, and the intervals that come of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.augmentation.scores import METRICS, Judged, resampled

AT_ONCE = 1_000_000  # numbers in memory while resamples are measured
RANGE = (2.5, 97.5)
HELPS, HARMS, SAME = "helps", "harms", "no difference shown"
TOO_FEW, LEAST = "too few rare rows to tell", 10  # groups of a test with rare rows


def resamples(groups: int, samples: int, seed: int, at_once: int) -> Iterator[np.ndarray]:
    """How often each resample has each group, drawn with replacement: (at most at_once, groups).

    They depend on the seed alone, not on how many come at once.
    """
    for start in range(0, samples, at_once):
        numbers = range(start, min(samples, start + at_once))
        drawn = (
            np.random.default_rng([seed, number]).integers(groups, size=groups)
            for number in numbers
        )
        yield np.stack([np.bincount(each, minlength=groups) for each in drawn])


def resampled_measures(judged: Judged, samples: int, seed: int) -> np.ndarray:
    """METRICS (samples, 4) of a test's resamples; its groups are numbered from 0."""
    at_once = max(1, AT_ONCE // len(judged.groups))
    groups = int(judged.groups.max()) + 1
    blocks = resamples(groups, samples, seed, at_once)
    return np.concatenate([resampled(judged, counts) for counts in blocks])


def difference(
    one: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray], values: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """By metric, how far one method is above another.

    Parameters
    ----------
    one, other : by seed, METRICS (samples, 4) of the resamples.
    values : by metric, those of the test itself, of each seed: a pair (one, other).

    Returns
    -------
    dict
        `mean` over seeds, `ci95` of that mean over resamples of the groups, and in how many of the
        `seeds` one is `better` and `worse`.
    """
    seeds = list(one)
    drawn = np.mean([one[seed] - other[seed] for seed in seeds], axis=0)
    low, high = np.nanpercentile(drawn, RANGE, axis=0)
    found = {}
    for place, name in enumerate(METRICS):
        gains = [first - second for first, second in values[name]]
        found[name] = {
            "mean": float(np.mean(gains)),
            "ci95": [float(low[place]), float(high[place])],
            "better": int(np.sum(np.array(gains) > 0)),
            "worse": int(np.sum(np.array(gains) < 0)),
            "seeds": len(seeds),
        }
    return found


def verdict(found: Mapping[str, Any], groups: int) -> str:
    """What a difference shows: something only if its interval excludes 0 and all seeds agree.

    The interval knows of the test's groups alone; that training varies shows in the seeds.

    Parameters
    ----------
    groups : of the test, with rare rows; a bootstrap of fewer than LEAST says nothing.
    """
    if groups < LEAST:
        return TOO_FEW
    low, high = found["ci95"]
    if low > 0 and found["better"] == found["seeds"]:
        return HELPS
    return HARMS if high < 0 and found["worse"] == found["seeds"] else SAME


def undefined(of_fit: Sequence[np.ndarray]) -> int:
    """Resamples that have not both classes; the same in all fits."""
    return int(np.isnan(of_fit[0][:, 0]).sum())
