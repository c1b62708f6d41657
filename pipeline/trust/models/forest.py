"""A property model: a random forest on ECFP4, whose trees' spread tells how unsure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.trust.described import Described
from pipeline.trust.models.trees import Trees

TREES, LIGHT = 200, 100
SHARE = "sqrt"  # of the bits, that a node may look at: a third takes thrice as long, as good


@dataclass(frozen=True)
class ForestModel:
    """A forest of `TREES` trees on the bits of ECFP4."""

    trees: Trees

    @classmethod
    def fit(
        cls, known: Described, labels: np.ndarray, *, binary: bool, seed: int, jobs: int | None,
        light: bool = False,
    ) -> ForestModel:  # fmt: skip
        """Fit to labels (n,); 0 and 1 are averaged, which gives a probability (`binary`).

        A `light` one has half the trees.
        """
        from sklearn.ensemble import RandomForestRegressor  # slow to import

        forest = RandomForestRegressor(
            LIGHT if light else TREES,
            max_features=SHARE,
            min_samples_leaf=1,
            n_jobs=jobs,
            random_state=seed,
        )
        return cls(Trees.of(forest.fit(_bits(known), labels)))

    def predict(self, asked: Described) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the trees, float64 (n,) each."""
        each = self.trees.each(_bits(asked))
        return each.mean(axis=1), each.std(axis=1)

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and what else decides predictions, ready for JSON."""
        return self.trees.arrays(), {}

    @classmethod
    def load(
        cls, arrays: Mapping[str, np.ndarray], more: dict[str, Any], known: Described
    ) -> ForestModel:
        """The inverse of `save`; `known` are the molecules it was fitted to."""
        return cls(Trees.from_arrays(arrays))


def _bits(molecules: Described) -> np.ndarray:
    return np.unpackbits(molecules.bits, axis=1).astype(np.float32)
