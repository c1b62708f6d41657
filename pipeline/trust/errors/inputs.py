"""What an error model looks at: how far a molecule is from those known, and who disagrees on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.molecules.features.descriptors import names_of
from pipeline.molecules.features.neighbours import nearest
from pipeline.trust.described import Described
from pipeline.trust.models.property_models import Predicted

NEIGHBOURS = 5
LEAST_WEIGHT = 1e-3  # of a neighbour that has nothing in common
SPREADS = {"forest": "spread of trees", "mlp": "spread of the ensemble", "gp": "GP deviation"}
SPREAD = "spread given"  # by the user


@dataclass(frozen=True)
class Space:
    """Distances in one view's features.

    Attributes
    ----------
    known : features of the known molecules, float32 (r, width).
    mean : (width,), theirs.
    whitening : (width, width); of (x − mean) · whitening the length is the Mahalanobis distance.
    """

    known: np.ndarray
    mean: np.ndarray
    whitening: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Space:
        """Of the known molecules' features; the covariance is shrunk as Ledoit and Wolf do."""
        from scipy.linalg import cholesky, solve_triangular
        from sklearn.covariance import ledoit_wolf  # slow to import

        features = features.astype(float)
        covariance, _ = ledoit_wolf(features)
        covariance[np.diag_indices_from(covariance)] += 1e-6
        lower = cholesky(covariance, lower=True)
        whitening = solve_triangular(lower, np.eye(len(lower)), lower=True).T
        return cls(features.astype(np.float32), features.mean(axis=0), whitening)

    def distances(self, asked: np.ndarray, threads: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Mean Euclidean distance to the nearest `NEIGHBOURS`, and Mahalanobis: (n,) each."""
        from sklearn.neighbors import NearestNeighbors  # slow to import

        count = min(NEIGHBOURS, len(self.known))
        jobs = -1 if threads is None else threads
        search = NearestNeighbors(n_neighbors=count, algorithm="brute", n_jobs=jobs)
        near = search.fit(self.known).kneighbors(asked.astype(np.float32))[0].mean(axis=1)
        white = (asked - self.mean) @ self.whitening
        return near.astype(float), np.sqrt(np.square(white).sum(axis=1))


@dataclass(frozen=True)
class Known:
    """The labelled molecules that others are compared with.

    Attributes
    ----------
    molecules, labels : of r molecules; labels float64 (r,).
    spaces : of each encoded view.
    """

    molecules: Described
    labels: np.ndarray
    spaces: Mapping[str, Space]

    @classmethod
    def of(cls, molecules: Described, labels: np.ndarray) -> Known:
        """With what distances need."""
        spaces = {name: Space.of(features) for name, features in molecules.encoded().items()}
        return cls(molecules, labels, spaces)

    def surroundings(self, asked: Described, threads: int | None = None) -> Surroundings:
        """What stands around molecules, whatever is predicted of them; `threads` None for all."""
        found = nearest(asked.bits, self.molecules.bits, NEIGHBOURS, threads=threads)
        similarity = found.similarity.astype(float)
        values = {
            "Tanimoto distance to the nearest": 1 - similarity[:, 0],
            "mean Tanimoto distance": 1 - similarity.mean(axis=1),
        }
        views = asked.encoded()
        for name, space in self.spaces.items():
            near, mahalanobis = space.distances(views[name], threads)
            values[f"distance to the nearest by {name}"] = near
            values[f"Mahalanobis distance by {name}"] = mahalanobis
        if asked.descriptors is not None:
            described = np.asarray(asked.descriptors, float)
            values |= dict(zip(names_of(described), described.T))
        labels, weights = self.labels[found.index], similarity + LEAST_WEIGHT
        values["spread of the neighbours' labels"] = labels.std(axis=1)
        near_label = (weights * labels).sum(axis=1) / weights.sum(axis=1)
        return Surroundings(values, near_label, float(self.labels.mean()))


class Surroundings(NamedTuple):
    """Of n molecules among those known.

    Attributes
    ----------
    values : inputs that depend on no prediction, (n,) each.
    near_label : (n,), the mean label of the nearest, weighted by similarity.
    mean_label : of all known.
    """

    values: dict[str, np.ndarray]
    near_label: np.ndarray
    mean_label: float


def inputs_of(
    around: Surroundings,
    prediction: np.ndarray,
    models: Predicted,
    spread: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Every input by its name, float64 (n,) each, in an order that is always the same.

    Parameters
    ----------
    prediction : (n,), the one whose error is in question.
    models : what the property models say.
    spread : (n,), the user's own measure of doubt in their predictions.
    """
    said = np.array([prediction, *(label for label, _ in models.values())])
    inputs = {
        **around.values,
        "gap to the neighbours' labels": np.abs(prediction - around.near_label),
        "prediction": prediction,
        "distance from the mean label": np.abs(prediction - around.mean_label),
        **{SPREADS[name]: deviation for name, (_, deviation) in models.items()},
        "disagreement of the models": said.std(axis=0),
        "gap to the other models": np.abs(prediction - said[1:].mean(axis=0)),
    }
    if spread is not None:
        inputs[SPREAD] = spread
    return {name: np.asarray(values, float) for name, values in inputs.items()}


def stacked(inputs: Mapping[str, Any], names: Sequence[str] | None = None) -> np.ndarray:
    """The inputs' values side by side, float64 (n, inputs).

    Parameters
    ----------
    names : all inputs, in the order wanted; None: as they come.
    """
    if names is not None and set(names) != set(inputs):
        raise ValueError(f"inputs are {', '.join(inputs)}; expected {', '.join(names)}")
    return np.stack([inputs[name] for name in names or inputs], axis=1)
