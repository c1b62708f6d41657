"""What generated features are worth, beside a second real sample, a Gaussian, and noise.

Precision, recall, density and coverage by `prdc` (Naeem et al. 2020), and how well a classifier
tells real from generated (0.5: not at all), all of equally many rows.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping

import numpy as np

from pipeline.runtime.errors import InputError

MOST_ROWS = 2000  # a side: distances of all pairs are taken
NEAREST = 5
TREES, FOLDS = 100, 5
LEAST_ROWS = 2 * FOLDS

MEASURES = ("precision", "recall", "density", "coverage", "told_apart_auroc")


def measure(
    real: np.ndarray, others: Mapping[str, np.ndarray], seed: int
) -> dict[str, dict[str, float] | None]:
    """The measures of each of some samples against one real one.

    All samples are cut to the size of the smallest that has at least LEAST_ROWS; others get None.

    Parameters
    ----------
    real, others : standardised features (n, d) of one class.
    """
    enough = [len(rows) for rows in (real, *others.values()) if len(rows) >= LEAST_ROWS]
    if len(real) < LEAST_ROWS:
        return dict.fromkeys(others)
    size = min(MOST_ROWS, *enough)
    rng = np.random.default_rng([seed, size])
    cut = real[rng.permutation(len(real))[:size]]
    found: dict[str, dict[str, float] | None] = {}
    for name, rows in others.items():
        if len(rows) < LEAST_ROWS:
            found[name] = None
            continue
        some = rows[rng.permutation(len(rows))[:size]]
        found[name] = {
            "rows": size, **_prdc(cut, some), "told_apart_auroc": told_apart(cut, some, seed)
        }  # fmt: skip
    return found


def _prdc(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    try:
        from prdc import compute_prdc
    except ImportError:
        raise InputError(
            "measures of generated features need prdc; install it by: "
            "pip install 'molsieve[generation]'"
        ) from None
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its sizes
        found = compute_prdc(real, made, min(NEAREST, len(real) - 2))
    return {name: float(value) for name, value in found.items()}


def told_apart(real: np.ndarray, made: np.ndarray, seed: int) -> float:
    """AUROC, out of fold, of a random forest that tells real from generated rows."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rows = np.concatenate([real, made])
    is_made = np.repeat([0, 1], [len(real), len(made)])
    forest = RandomForestClassifier(
        TREES, min_samples_leaf=2, max_features="sqrt", n_jobs=-1, random_state=seed % 2**32
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    told = cross_val_predict(forest, rows, is_made, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(is_made, told))


def gaussian(train: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The cheapest generator: a Gaussian of a class's training rows, shrunk by Ledoit and Wolf."""
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(train)
    rng = np.random.default_rng([seed, count])
    variances, vectors = np.linalg.eigh(fitted.covariance_)
    drawn = rng.standard_normal((count, train.shape[1])) * np.sqrt(variances.clip(min=0))
    return (fitted.location_ + drawn @ vectors.T).astype(np.float32)


def noise(train: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Independent Gaussian columns with a class's means and deviations."""
    rng = np.random.default_rng([seed, count, 1])
    drawn = rng.standard_normal((count, train.shape[1]))
    return (train.mean(axis=0) + drawn * train.std(axis=0)).astype(np.float32)


CONTROLS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "gaussian": gaussian,
    "noise": noise,
}
