"""Euclidean distances to the nearest of many feature vectors, exact where they are small."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# A squared distance below this share of the squared lengths has lost digits to cancellation in
# ‖x‖² − 2 x·y + ‖y‖², which scikit-learn takes in float64; it is computed again from x − y.
_CANCELLED = 1e-6
_AT_ONCE = 4_000_000  # numbers in memory while distances are computed again


class NearestFeatures(NamedTuple):
    """Distances (n, k) float64, rising, and rows (n, k) int64 among the references."""

    distance: np.ndarray
    index: np.ndarray


def nearest_features(
    queries: np.ndarray, references: np.ndarray, k: int, *, own: np.ndarray | None = None
) -> NearestFeatures:
    """The k nearest references of each query; equal features are exactly 0 apart.

    Parameters
    ----------
    queries, references : (n, width) and (r, width) float32.
    k : at most r, or r - 1 if rows are left out.
    own : (n,) the reference that is the query itself and is left out, or -1.
    """
    from sklearn.neighbors import NearestNeighbors

    queries, references = (np.ascontiguousarray(x, np.float32) for x in (queries, references))
    leaves_out = own is not None and bool((own >= 0).any())
    search = NearestNeighbors(n_neighbors=k + leaves_out, algorithm="brute").fit(references)
    if not len(queries):
        return NearestFeatures(np.empty((0, k)), np.empty((0, k), np.int64))
    distance, index = search.kneighbors(queries)
    distance = _exact(queries, references, distance.astype(np.float64), index)
    order = np.lexsort((index, distance), axis=1)
    distance, index = (np.take_along_axis(x, order, 1) for x in (distance, index))
    if leaves_out:
        distance, index = (_without(own, index, x) for x in (distance, index))
    return NearestFeatures(distance, index)


def _exact(
    queries: np.ndarray, references: np.ndarray, distance: np.ndarray, index: np.ndarray
) -> np.ndarray:
    """The distances, those that cancellation has touched computed again from differences."""
    lengths = _squares(queries)[:, None] + _squares(references)[index]
    rows, columns = np.nonzero(distance**2 <= _CANCELLED * lengths)
    step = max(1, _AT_ONCE // max(1, queries.shape[1]))
    for at in range(0, len(rows), step):
        row, column = rows[at : at + step], columns[at : at + step]
        difference = queries[row].astype(np.float64) - references[index[row, column]]
        distance[row, column] = np.sqrt(_squares(difference))
    return distance


def _squares(x: np.ndarray) -> np.ndarray:
    """Squared lengths (n,) float64 of rows."""
    return np.einsum("ij,ij->i", x, x, dtype=np.float64)


def _without(own: np.ndarray, index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One column less: `own` leaves its row; a row that does not have it loses its last."""
    keep = index != own[:, None]
    keep[keep.all(axis=1), -1] = False
    return values[keep].reshape(len(values), -1)
