"""How alike peptides are: exact, of all pairs, by rapidfuzz.

Identity is 1 − edits / residues of the longer, where edits are the fewest insertions, deletions and
substitutions (Levenshtein). The alignment with those edits is no shorter than the longer, so its
share of identical columns is at least that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.generation.packages import package
from pipeline.runtime.nodes.machine import usable_cores

AT_ONCE = 512  # rows of the matrix of identities that are held at a time


class Nearest(NamedTuple):
    """Identity to the most alike of others (n,) float32, and that one's place among them (n,)."""

    identity: np.ndarray
    place: np.ndarray


def nearest(sequences: Sequence[str], others: Sequence[str]) -> Nearest:
    """The most alike of some others, for each sequence."""
    found = [
        (rows.max(axis=1), rows.argmax(axis=1))
        for start in range(0, len(sequences), AT_ONCE)
        for rows in [identities(sequences[start : start + AT_ONCE], others)]
    ]
    empty = np.empty(0, np.float32), np.empty(0, np.int64)
    identity, place = (np.concatenate(parts) for parts in zip(empty, *found))
    return Nearest(identity, place)


def clusters(sequences: Sequence[str], least: float) -> np.ndarray:
    """The number of each sequence's cluster (n,): those that pairs of some identity link.

    Parameters
    ----------
    least : identity of a link.
    """
    lengths = np.array([len(text) for text in sequences])
    order = np.argsort(lengths, kind="stable")
    links = [np.empty((2, 0), np.int64), *_links([sequences[i] for i in order], least)]
    left, right = np.concatenate(links, axis=1)
    count = len(sequences)
    graph = coo_matrix((np.ones(len(left), bool), (order[left], order[right])), (count, count))
    return connected_components(graph, directed=False)[1]


def identities(
    sequences: Sequence[str], others: Sequence[str], least: float | None = None
) -> np.ndarray:
    """Identities (n, m) float32; those below `least` may be 0."""
    cdist = package("rapidfuzz.process", "peptides").cdist
    levenshtein = package("rapidfuzz.distance", "peptides").Levenshtein
    return cdist(
        sequences, others, scorer=levenshtein.normalized_similarity, score_cutoff=least,
        dtype=np.float32, workers=usable_cores(),
    )  # fmt: skip


def _links(ascending: Sequence[str], least: float) -> Iterator[np.ndarray]:
    """Pairs (2, p) of places with at least that identity: the shorter is no shorter than that."""
    lengths = np.array([len(text) for text in ascending])
    for start in range(0, len(ascending), AT_ONCE):
        end = min(start + AT_ONCE, len(ascending))
        first = int(np.searchsorted(lengths, np.floor(least * lengths[start])))
        found = identities(ascending[start:end], ascending[first:end], least)
        rows, columns = np.nonzero(found >= np.float32(least))
        yield np.stack([rows + start, columns + first])
