"""Ways to find the nearest molecules by Tanimoto similarity: how fast each is, and whether exact.

`python -m bench.neighbours --table FILE` writes neighbours.md: the first 25,000 molecules of a
table with the column `smiles`, 20,000 of them as queries against the other 5,000. The rows of
FPSim2, torch and numba are made where these are installed. All get fingerprints that are ready.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rdkit
import scipy
from rdkit import DataStructs
from rdkit.DataStructs import ExplicitBitVect
from threadpoolctl import threadpool_limits

from bench.report import cpu_name, markdown
from pipeline.molecules.features import neighbours
from pipeline.molecules.features.fingerprints import BITS, packed_ecfp4

QUERIES, REFERENCES, K = 20_000, 5_000, 5
AT_ONCE = 64
RDKIT, FPSIM2 = OF_VECTORS = "RDKit BulkTanimotoSimilarity", "FPSim2 top_k"
Prints = np.ndarray  # packed, (n, 256) uint8
Search = Callable[[Any], np.ndarray]  # similarities of the K nearest, falling: (n, K)


def _tanimoto(shared_BR: np.ndarray, counts_B: np.ndarray, counts_R: np.ndarray) -> np.ndarray:
    shared_BR = shared_BR.astype(np.float32)
    either_BR = np.maximum(counts_B[:, None] + counts_R - shared_BR, 1)
    return _best(shared_BR / either_BR)


def _best(similarity_BR: np.ndarray) -> np.ndarray:
    return -np.sort(-np.partition(similarity_BR, -K, axis=1)[:, -K:], axis=1)


def _counts(packed: Prints) -> np.ndarray:
    return np.bitwise_count(packed).sum(axis=1, dtype=np.float32)


def _in_blocks(one: Callable[[Prints], np.ndarray]) -> Search:
    return lambda queries: np.concatenate(
        [one(queries[start : start + AT_ONCE]) for start in range(0, len(queries), AT_ONCE)]
    )


def _bit_vectors(packed: Prints) -> list[ExplicitBitVect]:
    vectors = []
    for bits in np.unpackbits(packed, axis=1):
        vector = ExplicitBitVect(BITS)
        vector.SetBitsFromList(np.flatnonzero(bits).tolist())
        vectors.append(vector)
    return vectors


def by_rdkit(references: Prints) -> Search:
    """BulkTanimotoSimilarity, one query at a time."""
    known = _bit_vectors(references)

    def search(queries: list[ExplicitBitVect]) -> np.ndarray:
        bulk = DataStructs.BulkTanimotoSimilarity
        return np.concatenate([_best(np.array([bulk(query, known)])) for query in queries])

    return search


def by_counting(references: Prints) -> Search:
    """numpy.bitwise_count of packed words, one query at a time."""
    words_R, counts_R = references.view(np.uint64), _counts(references)

    def one(queries: Prints) -> np.ndarray:
        shared = [np.bitwise_count(q & words_R).sum(1) for q in queries.view(np.uint64)]
        return _tanimoto(np.array(shared), _counts(queries), counts_R)

    return _in_blocks(one)


def by_matrices(references: Prints) -> Search:
    """numpy's float32 product of the unpacked bits."""
    bits_RF = np.unpackbits(references, axis=1).astype(np.float32)

    def one(queries: Prints) -> np.ndarray:
        shared_BR = np.unpackbits(queries, axis=1).astype(np.float32) @ bits_RF.T
        return _tanimoto(shared_BR, _counts(queries), _counts(references))

    return _in_blocks(one)


def by_torch(references: Prints, kind: str) -> Search:
    """torch's product of the unpacked bits: bfloat16 (exact up to 256 shared bits) or int8."""
    import torch

    dtype = getattr(torch, kind)
    bits_FR = torch.from_numpy(np.unpackbits(references, axis=1).T.copy()).to(dtype)
    product = torch._int_mm if kind == "int8" else torch.mm

    def one(queries: Prints) -> np.ndarray:
        bits_BF = torch.from_numpy(np.unpackbits(queries, axis=1)).to(dtype)
        shared_BR = product(bits_BF, bits_FR).float().numpy()
        return _tanimoto(shared_BR, _counts(queries), _counts(references))

    return _in_blocks(one)


def by_sparse_product(references: Prints) -> Search:
    """scipy's product of two sparse matrices."""
    from scipy import sparse

    bits_FR = sparse.csr_array(np.unpackbits(references, axis=1).T.astype(np.int16))

    def one(queries: Prints) -> np.ndarray:
        bits_BF = sparse.csr_array(np.unpackbits(queries, axis=1).astype(np.int16))
        return _tanimoto((bits_BF @ bits_FR).toarray(), _counts(queries), _counts(references))

    return _in_blocks(one)


def by_numba(references: Prints) -> Search:
    """Counting words in compiled code, references by their number of bits and outwards from the
    query's, until no other number could do better."""
    import numba
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def popcount(typingctx, word):
        def code(context, builder, signature, arguments):
            return builder.ctpop(arguments[0])

        return types.uint64(types.uint64), code

    @numba.njit
    def search(queries, ours, words, counts):
        found = np.zeros((len(queries), K), np.float32)
        for q in range(len(queries)):
            best, mine = found[q], ours[q]
            high = np.searchsorted(counts, mine)
            low = high - 1
            while low >= 0 or high < len(counts):
                down = counts[low] / mine if low >= 0 else -1.0
                up = mine / counts[high] if high < len(counts) else -1.0
                if max(down, up) <= best[K - 1]:
                    break
                row = low if down >= up else high
                if row == low:
                    low -= 1
                else:
                    high += 1
                shared = np.uint64(0)
                for w in range(words.shape[1]):
                    shared += popcount(queries[q, w] & words[row, w])
                value = np.float32(shared / (mine + counts[row] - shared))
                place = K - 1
                if value <= best[place]:
                    continue
                while place > 0 and best[place - 1] < value:
                    best[place] = best[place - 1]
                    place -= 1
                best[place] = value
        return found

    order = np.argsort(_counts(references), kind="stable")
    words, counts = references[order].view(np.uint64), _counts(references)[order].astype(float)

    def run(queries: Prints) -> np.ndarray:
        return search(queries.view(np.uint64), _counts(queries).astype(float), words, counts)

    return run


def by_fpsim2(references: Prints, smiles: list[str]) -> Search:
    """FPSim2Engine.top_k with no threshold, one query at a time."""
    from FPSim2 import FPSim2Engine
    from FPSim2.io import create_db_file

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/known.h5"
        rows = [[text, number] for number, text in enumerate(smiles)]
        create_db_file(rows, path, "smiles", "Morgan", {"radius": 2, "fpSize": BITS})
        engine = FPSim2Engine(path)

    def search(queries: list[ExplicitBitVect]) -> np.ndarray:
        return np.array([engine.top_k(query, k=K, threshold=0.0)["coeff"] for query in queries])

    return search


def by_molsieve(references: Prints) -> Search:
    """pipeline.molecules.features.neighbours, on one thread."""
    return lambda queries: neighbours.nearest(queries, references, K, threads=1).similarity


def methods(references: Prints, smiles: list[str]) -> dict[str, tuple[Search, int]]:
    """Each way that can be gone here, and the number of queries that it is measured on."""
    known = {
        RDKIT: (by_rdkit(references), 500),
        "numpy bitwise_count": (by_counting(references), 500),
        "numpy float32 matrix product": (by_matrices(references), 1_000),
        "scipy sparse × sparse": (by_sparse_product(references), 1_000),
    }
    if importlib.util.find_spec("torch"):
        for kind in ("bfloat16", "int8"):
            known[f"torch {kind} matrix product"] = (by_torch(references, kind), 200)
    if importlib.util.find_spec("FPSim2"):
        known[FPSIM2] = (by_fpsim2(references, smiles), 500)
    if importlib.util.find_spec("numba"):
        known["numba popcount, pruned by bounds"] = (by_numba(references), 1_000)
    known["MolSieve: scipy sparse × a table of bytes"] = (by_molsieve(references), QUERIES)
    return known


def main() -> None:
    """Measure each, and write neighbours.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="CSV with smiles, gzipped")
    table = parser.parse_args().table
    with gzip.open(table, "rt") as file:
        rows = zip(csv.DictReader(file), range(QUERIES + REFERENCES))
        smiles = [row["smiles"] for row, _ in rows]
    order = np.random.default_rng(0).permutation(len(smiles))
    prints = packed_ecfp4([smiles[i] for i in order])
    references, queries = prints[:REFERENCES], prints[REFERENCES:]
    lines = []
    with threadpool_limits(1):
        if importlib.util.find_spec("torch"):
            import torch

            torch.set_num_threads(1)
        expected = by_matrices(references)(queries[:1_000])
        known = [smiles[i] for i in order[:REFERENCES]]
        for name, (search, count) in methods(references, known).items():
            asked = queries[:count]
            if name in OF_VECTORS:
                asked = _bit_vectors(asked)
            search(asked[:AT_ONCE])  # compiles, and imports
            started = time.process_time()
            found = search(asked)
            rate = count / (time.process_time() - started)
            error = np.abs(found[:1_000] - expected[: len(found)]).max()
            lines.append(
                (name, f"{count:,}", f"{rate:,.0f}", f"{1e6 / rate / 60:,.1f}", f"{error:.0e}")
            )
    text = [
        "# Nearest neighbours",
        "",
        f"`python -m bench.neighbours --table {table.name}` on {cpu_name()}, RDKit "
        f"{rdkit.__version__}, numpy {np.__version__}, scipy {scipy.__version__}: the {K} nearest "
        f"of {len(references):,} references by Tanimoto similarity of ECFP4 (2,048 bits, "
        f"{_counts(prints).mean():.0f} of them set on average), fingerprints ready. Seconds are of "
        "one core's work (CPU time on one thread, since others used the machine too). The last "
        "column is the largest difference to numpy's matrix product.",
        "",
        *markdown(
            ("", "queries", "queries/s and core", "core minutes for a million", "difference"), lines
        ),
        "",
    ]
    (Path(__file__).parent / "neighbours.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
