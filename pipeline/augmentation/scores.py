"""Metrics of a rare class, also of many resamples of groups at once.

A resample of groups is a number for each group, how often it was drawn; a row counts as often as
its group. All metrics follow from sums over rows in the order of their scores, so rows are sorted
once and never repeated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

METRICS = ("f1", "mcc", "auroc", "aupr")


class Judged(NamedTuple):
    """A test's rows (n,): scores, whether called rare, whether rare, and groups from 0 on."""

    scores: np.ndarray
    called: np.ndarray
    is_rare: np.ndarray
    groups: np.ndarray


def measures(
    scores: np.ndarray, is_rare: np.ndarray, called: np.ndarray | None = None
) -> dict[str, float]:
    """METRICS of rows (n,), all of which count once; none is `called` unless it is said."""
    called = np.zeros(len(scores), bool) if called is None else called
    judged = Judged(scores, called, is_rare, np.zeros(len(scores), np.int64))
    return dict(zip(METRICS, resampled(judged, np.ones((1, 1), np.int64))[0].tolist()))


def resampled(judged: Judged, counts: np.ndarray) -> np.ndarray:
    """METRICS (b, 4) of resamples, NaN where one has not both classes.

    AUROC counts ties as one half; AUPR is the average precision, equal scores together. MCC is 0
    where nothing or everything is called rare, as in scikit-learn.

    Parameters
    ----------
    counts : (b, G) how often each resample has each group.
    """
    found = np.concatenate([_of_calls(judged, counts), _of_ranks(judged, counts)], axis=1)
    found[np.isnan(found[:, 2])] = np.nan
    return found


def _of_calls(judged: Judged, counts: np.ndarray) -> np.ndarray:
    """F1 and MCC (b, 2)."""
    kinds = 2 * judged.called + judged.is_rare  # 3: true positives, 2: false ones, 1: missed
    cells = np.bincount(4 * judged.groups + kinds, minlength=4 * counts.shape[1]).reshape(-1, 4)
    tn, fn, fp, tp = (counts.astype(np.float64) @ cells).T
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * tp / (2 * tp + fp + fn)
        below = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
        mcc = np.where(below > 0, (tp * tn - fp * fn) / below, 0.0)
    return np.stack([f1, mcc], axis=1)


def _of_ranks(judged: Judged, counts: np.ndarray) -> np.ndarray:
    """AUROC and AUPR (b, 2)."""
    order = np.argsort(-judged.scores, kind="stable")  # the highest first
    ends = np.flatnonzero(np.append(np.diff(judged.scores[order]) != 0, True))  # of equal scores
    weights = counts[:, judged.groups[order]].astype(np.float64)
    true = np.cumsum(weights * judged.is_rare[order], axis=1)[:, ends]
    every = np.cumsum(weights, axis=1)[:, ends]
    false = every - true
    new_true, new_false = (np.diff(each, axis=1, prepend=0) for each in (true, false))
    positives, negatives = true[:, -1], false[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        beaten = negatives[:, None] - false + new_false / 2
        auroc = np.einsum("bi,bi->b", new_true, beaten) / (positives * negatives)
        aupr = np.einsum("bi,bi->b", new_true, true / np.maximum(every, 1)) / positives
    aupr[negatives == 0] = np.nan
    return np.stack([auroc, aupr], axis=1)


def threshold_of(scores: np.ndarray, is_rare: np.ndarray, by: str) -> float:
    """The score from which on rows are called rare, so that a metric of these rows is highest.

    Parameters
    ----------
    by : "f1" or "mcc".
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    tp = np.cumsum(is_rare[order])[ends].astype(np.float64)
    called, rare, rows = ends + 1.0, float(is_rare.sum()), len(scores)
    if by == "f1":
        found = 2 * tp / (called + rare)
    else:
        below = np.sqrt(called * rare) * np.sqrt((rows - called) * (rows - rare))
        found = np.where(below > 0, (tp * rows - called * rare) / np.maximum(below, 1e-300), 0.0)
    return float(scores[order][ends[int(np.argmax(found))]])
