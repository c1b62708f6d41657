"""Does a score find the errors: a score is good if predictions with high scores are the wrong ones.

Retention and its area follow Geifman et al., ICLR 2019 (excess AURC). Scores that are equal share
their errors, so that no order among them, such as the rows', counts.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

WORST = 0.2  # share of the errors that are to be found
KEPT = (0.5, 0.8)  # shares of the predictions that are kept, those with the lowest scores
BETTER = {
    "spearman": "higher", "auroc_worst": "higher", "rmse_kept_50": "lower", "rmse_kept_80": "lower",
    "excess_aurc": "lower",
}  # fmt: skip
METRICS = tuple(BETTER)


def is_worst(errors: np.ndarray) -> np.ndarray:
    """Which absolute errors (n,) are among the worst fifth: bool (n,)."""
    return errors >= np.quantile(errors, 1 - WORST, method="higher")


def finds_errors(scores: np.ndarray, errors: np.ndarray) -> dict[str, float]:
    """How well scores (n,), higher meaning less trust, find absolute errors (n,).

    Returns
    -------
    dict
        `spearman` with the errors (0 for a score that is constant); `auroc_worst`, AUROC of the
        worst fifth (NaN if that is everything); `rmse_kept_50` and `_80`, of the better share by
        the score; `excess_aurc`, mean absolute error of the kept, averaged over all shares kept,
        above that of keeping by the errors themselves.
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    squares, absolute = shared(scores, errors**2), shared(scores, errors)
    order = np.argsort(scores, kind="stable")
    kept = {
        f"rmse_kept_{share * 100:.0f}": float(
            np.sqrt(squares[order][: max(1, round(share * len(order)))].mean())
        )
        for share in KEPT
    }
    excess = area(absolute[order]) - area(np.sort(errors))
    return {
        "spearman": correlation(ranks, rankdata(errors)),
        "auroc_worst": auroc_of_ranks(ranks, is_worst(errors)),
        **kept,
        "excess_aurc": float(excess),
    }


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's; 0 if one does not vary."""
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / size) if size > 0 else 0.0


def auroc_of_ranks(ranks: np.ndarray, positive: np.ndarray) -> float:
    """AUROC from mean ranks (Mann and Whitney); NaN if all or none are positive."""
    many = int(positive.sum())
    pairs = many * (len(ranks) - many)
    return float((ranks[positive].sum() - many * (many + 1) / 2) / pairs) if pairs else float("nan")


def shared(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (n,), each the mean of those with the same score."""
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.bincount(group, values) / sizes)[group]


def area(ordered: np.ndarray) -> float:
    """Mean over k of the mean of the first k values."""
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1)).mean())


def retention(scores: np.ndarray, errors: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """RMSE of the share of predictions with the lowest scores, for each share."""
    squares = shared(scores, errors**2)[np.argsort(scores, kind="stable")]
    means = np.sqrt(np.cumsum(squares) / np.arange(1, len(squares) + 1))
    return means[np.maximum(1, np.round(shares * len(squares)).astype(int)) - 1]


def bootstrap(
    scores: Mapping[str, np.ndarray], errors: np.ndarray, *, samples: int, seed: int
) -> dict[str, dict[str, list[float]]]:
    """95 % percentile intervals of each score's metrics, over molecules.

    A resample is the same molecules for all scores.

    Parameters
    ----------
    scores : (n,) each, by name.
    samples : number of resamples.
    """
    rng = np.random.default_rng(seed)
    found = {name: {metric: [] for metric in METRICS} for name in scores}
    for _ in range(samples):
        rows = rng.integers(len(errors), size=len(errors))
        for name, values in scores.items():
            for metric, value in finds_errors(values[rows], errors[rows]).items():
                found[name][metric].append(value)
    return {
        name: {
            metric: np.nanpercentile(values, (2.5, 97.5)).tolist()
            for metric, values in of_score.items()
        }
        for name, of_score in found.items()
    }
