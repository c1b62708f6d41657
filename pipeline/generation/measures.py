"""What generated features are worth, beside a second real sample, a Gaussian, and noise.

Precision, recall, density and coverage by `prdc` (Naeem et al. 2020), and how well a classifier
tells real from generated (0.5: not at all), all of equally many rows.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping

import numpy as np

from pipeline.generation.diffusion.baselines import Gaussian
from pipeline.generation.packages import package

MOST_ROWS = 2000  # a side: distances of all pairs are taken
NEAREST = 5
TREES, FOLDS = 100, 5
LEAST_ROWS = 20  # of fewer, measures are chance


def measure(
    real: np.ndarray, others: Mapping[str, np.ndarray], seed: int, most: int = MOST_ROWS
) -> dict[str, dict[str, float] | None]:
    """The measures of each of some samples against a real one, of as many rows each.

    Parameters
    ----------
    real, others : standardised features (n, d) of one class.
    most : rows that are taken of each at most. Of a sample with fewer than are taken of the real
        one there are no measures: None.
    """
    size = min(MOST_ROWS, most, len(real))
    if size < LEAST_ROWS:
        return dict.fromkeys(others)
    rng = np.random.default_rng([seed, size])
    cut = real[rng.permutation(len(real))[:size]]
    found: dict[str, dict[str, float] | None] = {}
    for name, rows in others.items():
        found[name] = None
        if len(rows) >= size:
            some = rows[rng.permutation(len(rows))[:size]]
            auroc = told_apart(cut, some, seed)
            found[name] = {"rows": size, **_prdc(cut, some), "told_apart_auroc": auroc}
    return found


def _prdc(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its sizes
        found = package("prdc").compute_prdc(real, made, NEAREST)
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
    """The cheapest generator: a Gaussian of a class's training rows (n, d)."""
    return Gaussian.fit(train).draw(np.random.default_rng([seed, count]), count)


def noise(train: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Independent Gaussian columns with a class's means and deviations."""
    rng = np.random.default_rng([seed, count, 1])
    drawn = rng.standard_normal((count, train.shape[1]))
    return (train.mean(axis=0) + drawn * train.std(axis=0)).astype(np.float32)


CONTROLS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "gaussian": gaussian,
    "noise": noise,
}
