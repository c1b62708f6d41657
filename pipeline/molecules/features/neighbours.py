"""Exact nearest neighbours by Tanimoto similarity of fingerprints, on all cores.

Bits that two molecules share are counted for many references at once: those are turned into a table
with a row for each bit and a byte for each reference, and a query adds up the rows of the bits that
it has, some 50 of 2,048. So its other bits cost nothing. bench/neighbours.md compares this with
RDKit, FPSim2, counting packed bits, and matrix products.

Letters of shapes: B queries, R references of a block, F bits, K neighbours.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pipeline.runtime.nodes.machine import usable_cores

QUERIES, REFERENCES = 64, 8192  # at once: what a core's cache holds; more take no more memory


class Nearest(NamedTuple):
    """The nearest references of n queries, the most similar first, ties by lower index.

    Attributes
    ----------
    similarity : (n, k) float32, 0 to 1.
    index : (n, k) int64, rows of the references. -1, of similarity 0, where a query has fewer than
        k references because its own is left out.
    """

    similarity: np.ndarray
    index: np.ndarray


def nearest(
    queries: np.ndarray,
    references: np.ndarray,
    k: int = 1,
    *,
    own: np.ndarray | None = None,
    threads: int | None = None,
) -> Nearest:
    """The k references of the largest Tanimoto similarity to each query.

    Parameters
    ----------
    queries, references : (n, w) and (r, w) uint8, packed by `np.packbits`; of ECFP4 w is 256.
    k : neighbours of each query; if there are fewer references, so many.
    own : (n,) int; the reference that is the query itself, to be left out; -1 for none.
    threads : to work in; by default one for each core that this process may use.

    Returns
    -------
    Nearest
        Exact: different similarities of 2,048 bits differ in float32 too. Two molecules without
        any bits have similarity 0, as in RDKit.

    Raises
    ------
    ValueError
        If k or `own` cannot be, or the fingerprints are not packed alike.
    """
    _check(queries, references, k, own)
    n, k = len(queries), min(k, len(references))
    found = Nearest(np.full((n, k), -1, np.float32), np.full((n, k), -1, np.int64))
    if k == 0 or n == 0:
        return found
    own = np.full(n, -1) if own is None else np.asarray(own)
    threads = threads or usable_cores()
    for start in range(0, len(references), REFERENCES):
        block = references[start : start + REFERENCES]
        _search_block(block, start, queries, own, found, threads)
    found.similarity[found.index < 0] = 0
    return found


def _check(queries: np.ndarray, references: np.ndarray, k: int, own: np.ndarray | None) -> None:
    for name, prints in (("queries", queries), ("references", references)):
        if prints.dtype != np.uint8 or prints.ndim != 2:
            raise ValueError(f"{name} are {prints.dtype} {prints.shape}, not packed uint8 (n, w)")
    if queries.shape[1] != references.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} bytes, references {references.shape[1]}")
    if k < 1:
        raise ValueError(f"k is {k}, must be at least 1")
    if own is not None and np.shape(own) != (len(queries),):
        raise ValueError(f"own is of shape {np.shape(own)}, must be ({len(queries)},)")
    if own is not None and len(own) and not -1 <= np.min(own) <= np.max(own) < len(references):
        raise ValueError(f"own has rows beyond the {len(references)} references")


def _search_block(
    references: np.ndarray, first: int, queries: np.ndarray, own: np.ndarray, found: Nearest,
    threads: int,
) -> None:  # fmt: skip
    """Merge the nearest of some references into `found`; their table is freed at the end."""
    block = _Block(references, first)

    def search(start: int) -> None:
        part = slice(start, start + QUERIES)
        block.search(queries[part], own[part], *(each[part] for each in found))

    starts = range(0, len(queries), QUERIES)
    if threads == 1:
        for start in starts:
            search(start)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(search, starts):  # raises what a thread has raised
            pass


class _Block:
    """Some of the references, the first of which is row `start` of all."""

    def __init__(self, packed: np.ndarray, start: int):
        self.start = start
        self.counts_R = np.bitwise_count(packed).sum(axis=1, dtype=np.float32)
        # A sum of shared bits is at most what the reference has.
        self.dtype = np.uint8 if self.counts_R.max() < 256 else np.uint16
        self.table_FR = np.ascontiguousarray(np.unpackbits(packed, axis=1).T, dtype=self.dtype)

    def search(
        self, packed: np.ndarray, own_B: np.ndarray, best_BK: np.ndarray, index_BK: np.ndarray
    ) -> None:
        """Merge this block's nearest into the best so far, in place."""
        similarity_BR = self._similarities(packed)
        mine = np.flatnonzero((own_B >= self.start) & (own_B - self.start < len(self.counts_R)))
        similarity_BR[mine, own_B[mine] - self.start] = -1
        values, rows = _largest(similarity_BR, best_BK.shape[1])
        every, every_index = np.hstack([best_BK, values]), np.hstack([index_BK, rows + self.start])
        every_index[every < 0] = -1
        # Stable: of equal ones the earlier blocks', which have lower indices, come first.
        order = np.argsort(-every, axis=1, kind="stable")[:, : best_BK.shape[1]]
        best_BK[:] = np.take_along_axis(every, order, axis=1)
        index_BK[:] = np.take_along_axis(every_index, order, axis=1)

    def _similarities(self, packed: np.ndarray) -> np.ndarray:
        from scipy import sparse  # deferred: drivers import this module at their start

        bits_BF = sparse.csr_array(np.unpackbits(packed, axis=1).astype(self.dtype, copy=False))
        both_BR = (bits_BF @ self.table_FR).astype(np.float32)
        counts_B = np.diff(bits_BF.indptr).astype(np.float32)
        either_BR = counts_B[:, None] + self.counts_R
        either_BR -= both_BR
        np.maximum(either_BR, 1, out=either_BR)  # neither has any bits
        return np.divide(both_BR, either_BR, out=both_BR)


def _largest(similarity_BR: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and columns of the k largest, the lower column first; overwrites `similarity_BR`.

    argmax k times: for the few neighbours that are asked for faster than a partition, which also
    breaks ties at random.
    """
    rows = np.arange(len(similarity_BR))
    found = []
    for _ in range(min(k, similarity_BR.shape[1])):
        columns = similarity_BR.argmax(axis=1)
        found.append((similarity_BR[rows, columns], columns))
        similarity_BR[rows, columns] = -1
    values, columns = (np.stack(each, axis=1) for each in zip(*found))
    return values, columns
