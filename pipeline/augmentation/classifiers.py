"""Classifiers of a rare class: rows with weights → a function that scores features."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.augmentation.methods import Rows
from pipeline.augmentation.scores import measures
from pipeline.augmentation.settings import ClassifierSettings
from pipeline.runtime.train.optimizers import AdamW

AT_ONCE = 8192  # rows that are scored together
MOST_ITERATIONS = 2000  # of logistic regression


class Classifier(NamedTuple):
    """What was fitted.

    Attributes
    ----------
    score : features (n, d) → scores (n,) float64, higher: rather the rare class.
    epoch : that validation chose; 0 where there are none.
    finished : False if the limit of epochs or iterations ended it.
    """

    score: Callable[[np.ndarray], np.ndarray]
    epoch: int
    finished: bool


def fit_logistic(
    rows: Rows, val: Rows, batches: int, settings: ClassifierSettings, seed: int
) -> Classifier:
    """Logistic regression of scikit-learn, with its usual L2 penalty; validation is not used."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=MOST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `finished` tells it
        model.fit(rows.features, rows.is_rare, sample_weight=rows.weights)
    finished = bool(model.n_iter_[0] < MOST_ITERATIONS)
    return Classifier(lambda x: model.decision_function(x).astype(np.float64), 0, finished)


def fit_mlp(
    rows: Rows, val: Rows, batches: int, settings: ClassifierSettings, seed: int
) -> Classifier:
    """An MLP by AdamW; the weights of the epoch with the best AUPR in validation.

    Parameters
    ----------
    rows : standardised.
    val : real rows that stop it.
    batches : of an epoch.
    """
    torch.manual_seed(seed)
    model = _mlp(rows.features.shape[1], settings)
    optimizer = AdamW(
        model.parameters(), lr=settings.classifier_lr, weight_decay=settings.classifier_weight_decay
    )
    stream = _batches(rows, settings.classifier_batch_size, seed)
    best, best_epoch, kept, finished = -np.inf, 0, copy.deepcopy(model.state_dict()), False
    for epoch in range(1, settings.classifier_epochs + 1):
        model.train()
        for _ in range(batches):
            x, y, weights = next(stream)
            loss = nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y, weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        found = measures(_logits(model, val.features), val.is_rare)["aupr"]
        if found > best:
            best, best_epoch, kept = found, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= settings.classifier_patience:
            finished = True
            break
    model.load_state_dict(kept)
    return Classifier(lambda features: _logits(model, features), best_epoch, finished)


FITS = {"mlp": fit_mlp, "logistic": fit_logistic}


def _mlp(columns: int, settings: ClassifierSettings) -> nn.Sequential:
    width, dropout = settings.classifier_width, settings.classifier_dropout
    return nn.Sequential(
        nn.Linear(columns, width), nn.SiLU(), nn.Dropout(dropout),
        nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout),
        nn.Linear(width, 1),
    )  # fmt: skip


def _batches(rows: Rows, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches without end: features, classes and weights; each row once before any is twice."""
    rng = np.random.default_rng([seed, len(rows.features)])
    left = np.empty(0, np.int64)
    while True:
        while len(left) < size:
            left = np.concatenate([left, rng.permutation(len(rows.features))])
        chosen, left = left[:size], left[size:]
        yield (
            torch.from_numpy(rows.features[chosen]),
            torch.from_numpy(rows.is_rare[chosen].astype(np.float32)),
            torch.from_numpy(rows.weights[chosen].astype(np.float32)),
        )


@torch.inference_mode()
def _logits(model: nn.Module, features: np.ndarray) -> np.ndarray:
    model.eval()
    parts = [
        model(torch.from_numpy(features[start : start + AT_ONCE]))[:, 0].double().numpy()
        for start in range(0, len(features), AT_ONCE)
    ]
    return np.concatenate(parts)
