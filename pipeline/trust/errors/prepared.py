"""Labelled molecules made ready for error models: whose predictions are judged is not asked yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.trust.described import Described
from pipeline.trust.errors.inputs import Known
from pipeline.trust.errors.out_of_fold import FoldModels, Seen, cores, fold_models
from pipeline.trust.labels import checked_labels, held_out, is_binary
from pipeline.trust.models.property_models import (
    PropertyModel,
    fit_models,
    model_names,
    predict_all,
)


@dataclass(frozen=True)
class Prepared:
    """What all error models of n labelled molecules share.

    Attributes
    ----------
    labels : (n,).
    rows, held : rows of the molecules that are fitted to, and of those that calibrate intervals.
    binary : whether labels are 0 and 1.
    folds : of the molecules fitted to.
    known, models : these molecules, and the models fitted to all of them.
    calibration : how these models see the molecules held out.
    seed, jobs : as given to `of`.
    """

    labels: np.ndarray
    rows: np.ndarray
    held: np.ndarray
    binary: bool
    folds: FoldModels
    known: Known
    models: Mapping[str, PropertyModel]
    calibration: Seen
    seed: int
    jobs: int | None

    @classmethod
    def of(
        cls,
        smiles: Sequence[str],
        bits: np.ndarray,
        labels: np.ndarray,
        views: Mapping[str, np.ndarray],
        *,
        property_model: str | None = None,
        descriptors: np.ndarray | None,
        calibration: np.ndarray | None = None,
        seed: int = 0,
        jobs: int | None = -1,
    ) -> Prepared:
        """Fit the property models, to folds and to all; see `ErrorModel.fit`."""
        labels = checked_labels(smiles, labels)
        held = held_out(len(labels), seed) if calibration is None else np.asarray(calibration)
        rows = np.setdiff1d(np.arange(len(labels)), held)
        if calibration is not None:
            checked_labels([smiles[row] for row in rows], labels[rows])
        everyone = Described(bits, views, descriptors)
        names, binary = model_names(everyone, property_model), is_binary(labels)
        molecules, of = everyone.take(rows), labels[rows]
        folds = fold_models(molecules, of, names, binary=binary, seed=seed, jobs=jobs)
        models = fit_models(names, molecules, of, binary=binary, seed=seed, jobs=jobs)
        known, asked = Known.of(molecules, of), everyone.take(held)
        seen = Seen(held, predict_all(models, asked), known.surroundings(asked, cores(jobs)))
        return cls(labels, rows, held, binary, folds, known, models, seen, seed, jobs)
