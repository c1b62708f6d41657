"""Folds of labelled molecules: at random, and by cluster, so that errors far away are seen too."""

from __future__ import annotations

import numpy as np

from pipeline.molecules.splitting.clusters import grouped

FOLDS, CLUSTERS = 5, 20


def random_folds(count: int, seed: int) -> np.ndarray:
    """The fold of each of `count` molecules, int (count,); sizes differ by one at most."""
    return np.random.default_rng(seed).permutation(np.arange(count) % FOLDS)


def cluster_folds(bits: np.ndarray, seed: int) -> np.ndarray | None:
    """Folds of whole clusters of similar molecules, int (n,); the largest cluster first.

    Parameters
    ----------
    bits : packed fingerprints (n, w).

    Returns
    -------
    None
        If there are too few different molecules for clusters.
    """
    different = len(np.unique(bits, axis=0))
    if different < 2 * FOLDS:
        return None
    clusters = grouped(np.unpackbits(bits, axis=1), min(CLUSTERS, different // 2), seed)
    sizes = np.bincount(clusters)
    fold_of, filled = np.zeros(len(sizes), int), np.zeros(FOLDS)
    for cluster in np.argsort(-sizes, kind="stable"):
        fold_of[cluster] = filled.argmin()
        filled[filled.argmin()] += sizes[cluster]
    return fold_of[clusters]
