"""Distances of molecules to the ID training molecules, as few numbers to learn from.

Used by the detector `distance_lr`, and as the view `distances`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from pipeline.detectors.base import Inputs
from pipeline.detectors.distance.feature_distances import nearest_features
from pipeline.detectors.kept import array_bytes, member, read_arrays
from pipeline.molecules.features.neighbours import nearest
from pipeline.runtime.errors import InputError

log = logging.getLogger(__name__)

MOST_REFERENCES = 20_000
"""Distances are measured to at most so many ID training molecules."""
NEAREST = 5
ARRAYS, NUMBERS = "distances.safetensors", "distances.json"
# Tanimoto similarity is the distance of fingerprints; distances are what is made here.
_NOT_MEASURED = ("ecfp", "distances")


@dataclass(frozen=True)
class TrainingDistances:
    """ID training molecules to which distances are measured.

    Attributes
    ----------
    bits : (r, w) uint8, packed fingerprints.
    features : of each view that is measured, (r, its width) float32.
    rows : (r,) int64, their rows among all ID training molecules, rising.
    molecules : how many those are.
    """

    bits: np.ndarray
    features: dict[str, np.ndarray]
    rows: np.ndarray
    molecules: int

    @classmethod
    def fit(cls, id_train: Inputs, seed: int) -> Self:
        """Keep the ID training molecules, or `MOST_REFERENCES` drawn at random (logged).

        Raises
        ------
        InputError
            If there are fewer than two.
        """
        n = len(id_train)
        if n < 2:
            raise InputError(f"distances need at least 2 ID training molecules, got {n}")
        rows = np.arange(n)
        if n > MOST_REFERENCES:
            rows = np.sort(np.random.default_rng(seed).choice(n, MOST_REFERENCES, replace=False))
            log.info("distances: to %d of %d ID molecules, drawn at random", len(rows), n)
        elif n <= NEAREST:
            log.warning("distances: means are over %d other ID molecules, not %d", n - 1, NEAREST)
        features = {
            name: np.ascontiguousarray(id_train.features[rows, columns], np.float32)
            for name, columns in id_train.blocks.items()
            if name not in _NOT_MEASURED
        }
        return cls(id_train.bits[rows], features, rows.astype(np.int64), n)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the d columns of `of`: a view, and over how many neighbours the mean is."""
        return tuple(f"{kind}_{k}" for kind in ("tanimoto", *self.features) for k in (1, NEAREST))

    def of(self, inputs: Inputs) -> np.ndarray:
        """Distances (n, d) float64 to the nearest and, in the mean, to the 5 nearest references.

        Tanimoto distance of fingerprints, then Euclidean distance in each view but ecfp and
        distances. A reference that is the molecule itself is left out.
        """
        k, own = min(NEAREST, len(self.rows) - 1), self._reference_of_row[inputs.own]
        found = [1 - nearest(inputs.bits, self.bits, k, own=own).similarity.astype(np.float64)]
        for name, references in self.features.items():
            values = _view(inputs, name, references.shape[1])
            found.append(nearest_features(values, references, k, own=own).distance)
        return np.column_stack([x for d in found for x in (d[:, 0], d.mean(axis=1))])

    @cached_property
    def _reference_of_row(self) -> np.ndarray:
        """(molecules + 1,) the reference that a training row is, or -1; so for the row -1."""
        places = np.full(self.molecules + 1, -1, np.int64)
        places[self.rows] = np.arange(len(self.rows))
        return places

    def save(self) -> dict[str, bytes]:
        """File name → content; no pickle."""
        numbers = {"molecules": self.molecules, "views": list(self.features)}
        views = {f"features.{name}": x for name, x in self.features.items()}
        arrays = {"bits": self.bits, "rows": self.rows, **views}
        return {ARRAYS: array_bytes(arrays), NUMBERS: json.dumps(numbers).encode()}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        """What `save` gave; other files beside them are not looked at."""
        numbers, arrays = json.loads(member(files, NUMBERS)), read_arrays(member(files, ARRAYS))
        features = {name: arrays[f"features.{name}"] for name in numbers["views"]}
        return cls(arrays["bits"], features, arrays["rows"], numbers["molecules"])


def _view(inputs: Inputs, name: str, width: int) -> np.ndarray:
    """The columns of a view. InputError if they are missing or of another number."""
    columns = inputs.blocks.get(name)
    found = inputs.features[:, columns].shape[1] if columns is not None else 0
    if found != width:
        raise InputError(
            f"distances were fitted with {width} features of the view {name}, and these molecules "
            f"have {found}; give them the views that it was trained with"
        )
    return inputs.features[:, columns]
