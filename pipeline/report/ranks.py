"""Are methods different over several data sets? Average ranks, Friedman, Nemenyi, Holm.

Source: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALPHA = 0.05


@dataclass(frozen=True)
class Ranks:
    """Average ranks of k methods over n data sets; 1 is best.

    Attributes
    ----------
    ranks : (k,).
    distance : Nemenyi's critical difference: ranks nearer than that are not told apart.
    friedman : p of all methods being alike; None of two methods or two data sets.
    holm : (k,) p of each method against the best by Wilcoxon's signed ranks, Holm's correction;
        NaN for the best, and where data sets are too few to tell.
    """

    ranks: np.ndarray
    distance: float
    friedman: float | None
    holm: np.ndarray

    @property
    def cliques(self) -> list[tuple[int, int]]:
        """Largest groups of methods, in order of rank, whose ranks span less than `distance`."""
        order = np.sort(self.ranks)
        groups, reached = [], -1
        for first in range(len(order)):
            last = int(np.searchsorted(order, order[first] + self.distance, side="left")) - 1
            if last > max(first, reached):
                groups.append((first, last))
            reached = max(reached, last)
        return groups


def average_ranks(scores: np.ndarray) -> Ranks:
    """Ranks of methods by their scores (n data sets, k methods), higher is better.

    Raises
    ------
    ValueError
        If there are fewer than two of either, or a score is missing.
    """
    import scipy.stats  # slow to import

    n, k = scores.shape
    if n < 2 or k < 2 or not np.isfinite(scores).all():
        raise ValueError("ranks need two methods on two data sets, and all of their scores")
    ranks = scipy.stats.rankdata(-scores, axis=1).mean(axis=0)
    differ = bool((np.ptp(scores, axis=1) > 0).any())
    friedman = None
    if k > 2 and differ:
        friedman = float(scipy.stats.friedmanchisquare(*scores.T).pvalue)
    return Ranks(ranks, critical_difference(k, n), friedman, _holm(scores, int(ranks.argmin())))


def critical_difference(methods: int, data_sets: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of average ranks: q √(k (k + 1) / 6n)."""
    import scipy.stats

    q = scipy.stats.studentized_range.ppf(1 - alpha, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * data_sets)))


def _holm(scores: np.ndarray, best: int) -> np.ndarray:
    """See `Ranks.holm`."""
    import scipy.stats

    n, k = scores.shape
    found = np.full(k, np.nan)
    if 2.0 ** (1 - n) > ALPHA:  # the smallest p that n data sets can give
        return found
    for method in range(k):
        difference = scores[:, best] - scores[:, method]
        if method != best:
            same = not difference.any()
            found[method] = 1.0 if same else scipy.stats.wilcoxon(difference).pvalue
    others = np.array([m for m in np.argsort(found) if m != best])
    factors = np.arange(k - 1, 0, -1)
    found[others] = np.minimum(1, np.maximum.accumulate(found[others] * factors))
    return found
