"""Forests of regression trees as plain arrays: they are saved without pickle, and run as they are.

scikit-learn grows the trees; its own objects can only be pickled, and change with its version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

AT_ONCE = 1_000_000  # pairs of a molecule and a tree that are followed side by side


@dataclass(frozen=True)
class Trees:
    """Regression trees, one after the other in the arrays of their nodes.

    Attributes
    ----------
    roots : (trees,) int32, each tree's first node.
    feature : (nodes,) int32, what a node looks at; −1 in a leaf.
    threshold : (nodes,) float64; a value that is not above it goes left.
    left, right : (nodes,) int32, the nodes that follow.
    value : (nodes,) float64, the mean label of a node's training molecules.
    """

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, forest: Any) -> Trees:
        """The trees of a fitted `sklearn.ensemble.RandomForestRegressor` of one output."""
        trees = [each.tree_ for each in forest.estimators_]
        roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
        return cls(
            roots.astype(np.int32),
            np.concatenate([np.maximum(tree.feature, -1) for tree in trees]).astype(np.int32),
            np.concatenate([tree.threshold for tree in trees]),
            *(
                np.concatenate([at + getattr(tree, side) for at, tree in zip(roots, trees)])
                .astype(np.int32)
                for side in ("children_left", "children_right")
            ),
            np.concatenate([tree.value[:, 0, 0] for tree in trees]),
        )  # fmt: skip

    def each(self, table: np.ndarray) -> np.ndarray:
        """What each tree says of each row of a (n, features) table: float64 (n, trees)."""
        step = max(1, AT_ONCE // len(self.roots))
        parts = [self._each(table[start : start + step]) for start in range(0, len(table), step)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.roots)))

    def _each(self, table: np.ndarray) -> np.ndarray:
        table = np.ascontiguousarray(table)
        values, width = table.ravel(), table.shape[1]
        node = np.tile(self.roots, len(table))
        start_of_row = np.repeat(np.arange(len(table)) * width, len(self.roots))
        going = np.arange(len(node))
        while len(going):
            here = node[going]
            looked_at = self.feature[here]
            inner = looked_at >= 0
            going, here, looked_at = going[inner], here[inner], looked_at[inner]
            # scikit-learn compares float32 values with float64 thresholds
            stays = values[start_of_row[going] + looked_at] <= self.threshold[here]
            node[going] = np.where(stays, self.left[here], self.right[here])
        return self.value[node].reshape(len(table), len(self.roots))

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, for safetensors."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Trees:
        """The inverse of `arrays`."""
        return cls(*(arrays[each.name] for each in fields(cls)))
