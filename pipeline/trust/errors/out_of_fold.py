"""Errors on molecules that a model has not seen, with what an error model may look at of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.trust.described import Described
from pipeline.trust.errors.folds import cluster_folds, random_folds
from pipeline.trust.errors.inputs import Known, Surroundings, inputs_of, stacked
from pipeline.trust.models.property_models import Predicted, fit_models, predict_all


class Seen(NamedTuple):
    """Some labelled molecules as the models see them that did not know their fold.

    Attributes
    ----------
    rows : among all labelled molecules.
    predicted, around : what the models say, and what stands around them.
    """

    rows: np.ndarray
    predicted: Predicted
    around: Surroundings


class OutOfFold(NamedTuple):
    """Of n labelled molecules, each unseen by its models.

    Attributes
    ----------
    names : of the inputs, in order.
    inputs : (n, inputs) float64.
    prediction : (n,).
    """

    names: tuple[str, ...]
    inputs: np.ndarray
    prediction: np.ndarray


class FoldModels(NamedTuple):
    """All folds' models at work: at random, and by cluster (empty if there are no clusters)."""

    at_random: list[Seen]
    by_cluster: list[Seen]


def fold_models(
    molecules: Described,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    binary: bool,
    seed: int,
    jobs: int | None,
) -> FoldModels:
    """Fit the named models without each fold, and show them that fold.

    Parameters
    ----------
    molecules, labels : of n labelled molecules.
    binary, seed, jobs : as `fit_models`.
    """
    kinds = random_folds(len(labels), seed), cluster_folds(molecules.bits, seed)
    made = []
    for folds in kinds:
        seen = []
        for fold in [] if folds is None else np.unique(folds):
            rows, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            known = Known.of(molecules.take(others), labels[others])
            models = fit_models(
                names, known.molecules, known.labels, binary=binary, seed=seed, jobs=jobs,
                light=True,
            )  # fmt: skip
            asked = molecules.take(rows)
            around = known.surroundings(asked, cores(jobs))
            seen.append(Seen(rows, predict_all(models, asked), around))
        made.append(seen)
    return FoldModels(*made)


def cores(jobs: int | None) -> int | None:
    """scikit-learn's number of jobs (None: one, −1: all) as a number of threads (None: all)."""
    return None if jobs == -1 else (jobs or 1)


def chosen(predicted: Predicted, property_model: str | None) -> np.ndarray:
    """The prediction (n,) of the property model; without one, the mean of all models."""
    if property_model is not None:
        return predicted[property_model][0]
    return np.mean([label for label, _ in predicted.values()], axis=0)


def out_of_fold(
    every: Sequence[Seen],
    property_model: str | None,
    predictions: np.ndarray | None = None,
    spread: np.ndarray | None = None,
) -> OutOfFold:
    """Inputs and predictions of all molecules, in their order.

    Parameters
    ----------
    every : the folds of one kind.
    predictions, spread : (n,), the user's own out-of-fold predictions, in place of the models'.
    """
    parts, said = [], []
    for rows, predicted, around in every:
        given = chosen(predicted, property_model) if predictions is None else predictions[rows]
        seen = inputs_of(around, given, predicted, taken(spread, rows))
        parts.append(stacked(seen))
        said.append(given)
    back = np.argsort(np.concatenate([seen.rows for seen in every]))
    return OutOfFold(tuple(seen), np.concatenate(parts)[back], np.concatenate(said)[back])


def taken(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Some rows of what may be missing."""
    return None if values is None else np.asarray(values, float)[rows]


def both_kinds(
    folds: FoldModels,
    property_model: str | None,
    predictions: np.ndarray | None,
    spread: np.ndarray | None,
) -> list[OutOfFold]:
    """Out of random folds, and out of folds of whole clusters where there are clusters.

    Of the user's predictions the folds are unknown, and taken as random. How errors grow away from
    training is then seen from our own models out of clusters; with the user's own spread, which
    these cannot have, there are random folds alone.
    """
    kinds = [out_of_fold(folds.at_random, property_model, predictions, spread)]
    if folds.by_cluster and spread is None:
        kinds.append(out_of_fold(folds.by_cluster, property_model))
    return kinds
