"""Isolation forest: how few random cuts separate a molecule from the others."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np

from pipeline.detectors.base import Inputs, check_width
from pipeline.detectors.kept import KeptDetector, Training


class IsolationForest(KeptDetector):
    """Score: 2^(-mean path / expected path), 0 … 1; scikit-learn grows the trees.

    Liu et al., Isolation Forest, 2008. Equals -`score_samples` of scikit-learn. Kept are the trees'
    nodes, one after the other: `left` and `right` (a leaf's are itself), `feature`, `threshold`,
    `path` (depth, plus what a leaf's molecules would need to be separated) and the `roots`.
    """

    name: ClassVar[str] = "isolation_forest"

    @classmethod
    def _fitted(cls, training: Training) -> Self:
        """Trees of 256 ID molecules each, or all if there are fewer."""
        from sklearn.ensemble import IsolationForest as Forest

        forest = Forest(n_estimators=training.settings.isolation_trees, random_state=training.seed)
        forest.fit(training.id_train.features)
        trees = [_nodes(grown.tree_) for grown in forest.estimators_]
        sizes = [len(tree["path"]) for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]])
        for root, tree in zip(roots, trees):
            tree["left"] += root
            tree["right"] += root
        arrays = {key: np.concatenate([tree[key] for tree in trees]) for key in trees[0]}
        numbers = {
            "width": training.id_train.features.shape[1],
            "depth": max(grown.get_depth() for grown in forest.estimators_),
            "expected_path": float(_expected_path(np.array([forest.max_samples_]))[0]),
        }
        return cls({**arrays, "roots": roots.astype(np.int32)}, numbers)

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Anomaly scores (n,) float64."""
        check_width(inputs, self.numbers["width"], self.name)
        a, features = self.arrays, np.asarray(inputs.features, np.float32)
        rows, total = np.arange(len(features)), np.zeros(len(features))
        for root in a["roots"]:
            node = np.full(len(features), root)
            for _ in range(self.numbers["depth"]):
                goes_left = features[rows, a["feature"][node]] <= a["threshold"][node]
                node = np.where(goes_left, a["left"][node], a["right"][node])
            total += a["path"][node]
        mean = total / len(a["roots"])
        return 2.0 ** (-mean / self.numbers["expected_path"])


def _nodes(tree: Any) -> dict[str, np.ndarray]:
    """A tree of scikit-learn as arrays over its nodes; parents come before their children."""
    at = np.arange(tree.node_count, dtype=np.int32)
    leaf = tree.children_left < 0
    left, right = (
        np.where(leaf, at, child).astype(np.int32)
        for child in (tree.children_left, tree.children_right)
    )
    depth = np.zeros(len(at))
    for node in at[~leaf]:
        depth[[left[node], right[node]]] = depth[node] + 1
    return {
        "left": left,
        "right": right,
        "feature": np.where(leaf, 0, tree.feature).astype(np.int32),
        "threshold": np.where(leaf, 0.0, tree.threshold),
        "path": depth + _expected_path(tree.n_node_samples),
    }


def _expected_path(n: np.ndarray) -> np.ndarray:
    """Mean path of a failed search among n in a binary search tree: 0 for 1, 1 for 2."""
    n = n.astype(np.float64)
    many = np.maximum(n, 3)
    path = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, path))
