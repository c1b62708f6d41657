"""The error model: what not to trust among a property model's predictions, and how far to.

From a labelled training set it learns how large the errors of predictions are that were made
without the molecule (or without all molecules like it), and what shows it beforehand. Intervals are
conformal: calibrated on labelled molecules that neither property model nor error model has seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.detectors.kept import array_bytes, read_arrays
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes
from pipeline.trust.described import Described
from pipeline.trust.errors import conformal
from pipeline.trust.errors.inputs import SPREAD, Known, inputs_of, stacked
from pipeline.trust.errors.out_of_fold import (
    OutOfFold,
    both_kinds,
    chosen,
    cores,
    out_of_fold,
    taken,
)
from pipeline.trust.errors.prepared import Prepared
from pipeline.trust.errors.ranker import ErrorRanker
from pipeline.trust.errors.saved import known_of, saved_known
from pipeline.trust.errors.trusted import Trusted
from pipeline.trust.labels import check_finite
from pipeline.trust.models.gaussian_process import MOST
from pipeline.trust.models.property_models import (
    PropertyModel,
    load_models,
    predict_all,
    save_models,
)

VERSION = 1  # of the files


@dataclass(frozen=True)
class ErrorModel:
    """Property models, what tells their errors, and residuals that intervals rest on.

    Attributes
    ----------
    known : the labelled molecules fitted on.
    models : the property models, by name.
    property_model : whose errors are told; None: those of the user's own predictions.
    binary : whether labels are 0 and 1, so that predictions are probabilities.
    ranker : inputs to expected errors.
    residuals : (c,), |y − prediction| / scale of the calibration molecules, rising.
    row : (n,) int64 of all molecules given to `fit`: the row in `known`, −1 in the calibration.
    out_of_fold : inputs and predictions of `known`, each molecule unseen by its models.
    """

    known: Known
    models: Mapping[str, PropertyModel]
    property_model: str | None
    binary: bool
    ranker: ErrorRanker
    residuals: np.ndarray
    row: np.ndarray
    out_of_fold: OutOfFold

    @classmethod
    def fit(
        cls,
        smiles: Sequence[str],
        bits: np.ndarray,
        labels: np.ndarray,
        views: Mapping[str, np.ndarray],
        *,
        property_model: str | None = "forest",
        predictions: np.ndarray | None = None,
        spread: np.ndarray | None = None,
        descriptors: np.ndarray | None,
        calibration: np.ndarray | None = None,
        seed: int = 0,
        jobs: int | None = -1,
    ) -> ErrorModel:
        """Fit to n labelled molecules, each of them once.

        Parameters
        ----------
        smiles : for messages.
        bits : packed fingerprints, (n, w).
        labels : (n,), numbers, or 0 and 1 alone.
        views : features (n, width) by view, standardised on these molecules.
        property_model : forest, mlp, gp; None with the user's own `predictions`.
        predictions : (n,), the user's own, each made without its molecule (out-of-fold).
        spread : (n,), how unsure the user's own model is; larger: less sure.
        descriptors : of `descriptor_values`, (n, 13) or, of sequences, (n, 26); or None.
        calibration : rows of the molecules that intervals are calibrated on, and nothing is fitted
            to; None: an eighth, drawn at random.
        jobs : cores, −1 for all.

        Raises
        ------
        InputError
            If labels are missing, all the same, or too few; if predictions are not finite.
        """
        if predictions is not None:
            property_model = None
        elif property_model is None:
            raise InputError("without --predictions, --property_model must be forest, mlp or gp")
        for name, values in (("predictions", predictions), ("spread", spread)):
            if values is not None:
                check_finite(name, smiles, values)
        prepared = Prepared.of(
            smiles, bits, labels, views, property_model=property_model, descriptors=descriptors,
            calibration=calibration, seed=seed, jobs=jobs,
        )  # fmt: skip
        return cls.of(prepared, property_model, predictions, spread)

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        property_model: str | None,
        predictions: np.ndarray | None = None,
        spread: np.ndarray | None = None,
    ) -> ErrorModel:
        """Fit to molecules that are ready; all as in `fit`."""
        rows, held, labels = prepared.rows, prepared.held, prepared.labels
        folds = both_kinds(
            prepared.folds, property_model, taken(predictions, rows), taken(spread, rows)
        )
        ranker = ErrorRanker.fit(
            np.concatenate([fold.inputs for fold in folds]),
            np.concatenate([np.abs(fold.prediction - labels[rows]) for fold in folds]),
            seed=prepared.seed,
            jobs=prepared.jobs,
        )
        unseen = out_of_fold(
            [prepared.calibration._replace(rows=np.arange(len(held)))],
            property_model, taken(predictions, held), taken(spread, held),
        )  # fmt: skip
        _, scale = ranker.expected_and_scale(unseen.inputs)
        row = np.full(len(labels), -1)
        row[rows] = np.arange(len(rows))
        return cls(
            prepared.known, prepared.models, property_model, prepared.binary, ranker,
            np.sort(np.abs(labels[held] - unseen.prediction) / scale), row, folds[0],
        )  # fmt: skip

    def predict(
        self,
        bits: np.ndarray,
        views: Mapping[str, np.ndarray],
        descriptors: np.ndarray | None,
        *,
        predictions: np.ndarray | None = None,
        spread: np.ndarray | None = None,
        own: np.ndarray | None = None,
        jobs: int | None = None,
    ) -> Trusted:
        """Predictions of n molecules, and how large their errors may be.

        Parameters
        ----------
        bits, views, descriptors, predictions, spread : as in `fit`, of these molecules.
        own : (n,), the row of each among the molecules given to `fit`, −1 of any other. What is
            said of a molecule fitted on is what was said without it (out-of-fold).
        jobs : cores; None for one, as in a Ray actor.

        Raises
        ------
        InputError
            If `predictions`, or `spread`, are missing that the model was fitted with, or are given
            and it was fitted without.
        """
        _check_given("predictions", self.property_model is None, predictions)
        _check_given("spread", SPREAD in self.out_of_fold.names, spread)
        asked = Described(bits, views, descriptors)
        made = self._predict(asked, predictions, spread, jobs)
        fitted_on = np.full(len(asked), -1) if own is None else np.asarray(own)
        fitted_on = np.where(fitted_on >= 0, self.row[fitted_on], -1)
        here = np.flatnonzero(fitted_on >= 0)
        if len(here):
            _, inputs, said = self.out_of_fold
            kept = fitted_on[here]
            unseen = Trusted(said[kept], *self.ranker.expected_and_scale(inputs[kept]))
            for values, without in zip(made, unseen):
                values[here] = without
        return made

    def _predict(
        self,
        asked: Described,
        predictions: np.ndarray | None,
        spread: np.ndarray | None,
        jobs: int | None,
    ) -> Trusted:
        predicted = predict_all(self.models, asked)
        given = chosen(predicted, self.property_model) if predictions is None else predictions
        given = np.array(given, float)
        around = self.known.surroundings(asked, cores(jobs))
        told = stacked(inputs_of(around, given, predicted, spread), self.out_of_fold.names)
        return Trusted(given, *self.ranker.expected_and_scale(told))

    @property
    def notes(self) -> list[str]:
        """What a user should know of this model, a sentence each."""
        notes, known = [], len(self.known.labels)
        if known > MOST:
            notes.append(
                f"the Gaussian process rests on {MOST:,} of {known:,} molecules, at random"
            )
        if "mlp" not in self.models:
            notes.append("no MLP ensemble: there are no features of unimol, unimol2 or minimol")
        if self.binary:
            notes.append(
                "labels are 0 and 1: predictions are probabilities, intervals end at 0 and 1"
            )
        if SPREAD in self.out_of_fold.names:
            notes.append("with your own spread, errors are learned from random folds alone")
        return notes

    def quantile(self, alpha: float) -> float:
        """What scales are multiplied by for intervals that hold a share of 1 − α.

        Raises
        ------
        InputError
            If there are too few calibration molecules for that.
        """
        return conformal.quantile(self.residuals, alpha)

    def interval(self, made: Trusted, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds (n,) of labels; errors as `quantile`."""
        q = self.quantile(alpha)
        return conformal.interval(made.prediction, made.scale, q, binary=self.binary)

    def save(self) -> dict[str, bytes]:
        """Files by name; no pickle."""
        about = {
            "version": VERSION,
            "models": list(self.models),
            "property_model": self.property_model,
            "binary": self.binary,
            "inputs": list(self.out_of_fold.names),
        }
        rest = {
            "residuals": self.residuals,
            "row": self.row,
            "inputs": self.out_of_fold.inputs,
            "prediction": self.out_of_fold.prediction,
        }
        return {
            "error_model.json": json_bytes(about),
            "known.safetensors": saved_known(self.known),
            "errors.safetensors": array_bytes(self.ranker.arrays()),
            "out_of_fold.safetensors": array_bytes(rest),
            **save_models(self.models),
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> ErrorModel:
        """The inverse of `save`: what it predicts is equal.

        Raises
        ------
        InputError
            If another version of MolSieve wrote the files.
        """
        about = json.loads(files["error_model.json"])
        if about["version"] != VERSION:
            raise InputError(
                f"the checkpoint's error model is of version {about['version']}, this MolSieve "
                f"reads {VERSION}; train again"
            )
        known = known_of(files["known.safetensors"])
        rest = read_arrays(files["out_of_fold.safetensors"])
        return cls(
            known,
            load_models(about["models"], files, known.molecules),
            about["property_model"],
            about["binary"],
            ErrorRanker.from_arrays(read_arrays(files["errors.safetensors"])),
            rest["residuals"],
            rest["row"],
            OutOfFold(tuple(about["inputs"]), rest["inputs"], rest["prediction"]),
        )


def _check_given(name: str, wanted: bool, values: np.ndarray | None) -> None:
    if wanted and values is None:
        raise InputError(
            f"the error model was fitted with {name} of your own model: give these molecules' too"
        )
    if values is not None and not wanted:
        raise InputError(f"the error model was fitted without {name} of your own: leave them out")
