"""Clusters of similar proteins, so that none that is held out resembles one that is trained on.

Proteins that share a word are in one cluster, and those that are linked by others so: single
linkage, as by k-mer matches before an alignment (Steinegger and Söding, Nature Communications 2018,
who then align). A word is K residues of which at least VARIED differ. Two unrelated proteins of 400
residues share one by chance once in millions; homologues far apart may share none.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.encoders.esm.tokens import VOCABULARY
from pipeline.pretraining.sequences.crops import Proteins

K, VARIED = 9, 5
MIXING = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, Knuth 6.4
MOST_WORDS = 50_000_000  # that are compared: of more, those with the least hashes


def clusters_of(proteins: Proteins, k: int = K, most: int = MOST_WORDS) -> np.ndarray:
    """Number of each protein's cluster (n,)."""
    words, owners = _words(proteins, k, most)
    order = np.argsort(words, kind="stable")
    words, owners = words[order], owners[order]
    same = words[1:] == words[:-1]
    links = owners[:-1][same], owners[1:][same]
    n = len(proteins)
    graph = coo_array((np.ones(len(links[0]), bool), links), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def held_out(proteins: Proteins, size: int, seed: int) -> np.ndarray:
    """Which proteins are held out (n,) bool: whole clusters, drawn by a seed, `size` in all.

    Clusters that are larger than what is still to be drawn are passed over, so that there may be
    fewer.
    """
    cluster = clusters_of(proteins)
    sizes = np.bincount(cluster)
    chosen, left = np.zeros(len(sizes), bool), size
    for number in np.random.default_rng(seed).permutation(len(sizes)):
        # a cluster of more than a tenth of them would speak for all
        if sizes[number] <= min(left, max(1, size // 10)):
            chosen[number] = True
            left -= sizes[number]
    return chosen[cluster]


def _words(proteins: Proteins, k: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Words (m,) uint64, and whose they are (m,); a sample of them that all proteins share."""
    residues = proteins.residues.astype(np.uint64)
    count = max(0, len(residues) - k + 1)
    words, letters = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    for place in range(k):
        part = residues[place : place + count]
        words = words * np.uint64(len(VOCABULARY)) + part
        letters |= np.uint64(1) << part
    owners = np.repeat(np.arange(len(proteins)), proteins.lengths)[:count]
    kept = (np.arange(count) + k <= proteins.ends[owners + 1]) & (
        np.bitwise_count(letters) >= VARIED
    )
    words, owners = words[kept], owners[kept]
    if len(words) > most:
        kept = words * MIXING < np.uint64(2**64 / len(words) * most)
        words, owners = words[kept], owners[kept]
    return words, owners
