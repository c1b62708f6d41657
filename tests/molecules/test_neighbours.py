"""Nearest neighbours against RDKit's similarities of every pair."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem

from pipeline.molecules.features import neighbours
from pipeline.molecules.features.fingerprints import ecfp4, packed_ecfp4
from pipeline.molecules.features.neighbours import nearest
from tests.commands import REPOSITORY


def similarities(smiles, references) -> np.ndarray:
    """RDKit's, (n, r), of fingerprints that RDKit's older function makes."""
    prints, known = (
        [AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(s), 2, nBits=2048) for s in some]
        for some in (smiles, references)
    )
    return np.array([DataStructs.BulkTanimotoSimilarity(one, known) for one in prints])


def sorted_out(pairs: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each row, ties by lower index: by a plain sort of Python tuples."""
    order = [sorted(range(pairs.shape[1]), key=lambda c: (-row[c], c))[:k] for row in pairs]
    return np.take_along_axis(pairs, np.array(order), axis=1), np.array(order)


def random_prints(n: int, bits: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.packbits(rng.random((n, 2048)) < bits, axis=1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that a few hundred molecules fill several times, and not evenly."""
    monkeypatch.setattr(neighbours, "QUERIES", 7)
    monkeypatch.setattr(neighbours, "REFERENCES", 23)


@pytest.mark.parametrize("k", [1, 2, 5, 10])
@pytest.mark.parametrize("threads", [1, 2, None])
def test_they_are_those_of_rdkit(small_blocks, hiv_smiles, moses_smiles, k, threads):
    queries = [*moses_smiles[:40], *hiv_smiles[50:70]]
    references = [*hiv_smiles[:100], *hiv_smiles[40:80]]  # some twice: ties
    found = nearest(packed_ecfp4(queries), packed_ecfp4(references), k, threads=threads)
    expected, index = sorted_out(similarities(queries, references), k)
    np.testing.assert_array_equal(found.similarity, expected.astype(np.float32))
    np.testing.assert_array_equal(found.index, index)
    assert found.similarity.dtype == np.float32 and found.index.dtype == np.int64


@pytest.mark.parametrize("bits", [0.004, 0.02, 0.3, 0.97])  # the last two share over 255 bits
def test_they_are_exact_for_few_and_many_bits(small_blocks, bits):
    queries, references = random_prints(30, bits), random_prints(60, bits, seed=1)
    ours, theirs = (np.unpackbits(each, axis=1).astype(float) for each in (queries, references))
    both = ours @ theirs.T
    pairs = both / (ours.sum(1)[:, None] + theirs.sum(1) - both)
    expected, index = sorted_out(pairs, 4)
    found = nearest(queries, references, 4)
    np.testing.assert_array_equal(found.similarity, expected.astype(np.float32))
    np.testing.assert_array_equal(found.index, index)


def test_a_molecules_own_row_is_left_out_and_its_repeats_are_not(small_blocks, hiv_smiles):
    molecules = [*hiv_smiles[:60], *hiv_smiles[:5]]
    own = np.arange(len(molecules))
    own[10] = -1
    pairs = similarities(molecules, molecules)
    for row, column in enumerate(own):
        if column >= 0:
            pairs[row, column] = -1
    prints = packed_ecfp4(molecules)
    found = nearest(prints, prints, 3, own=own)
    expected, index = sorted_out(pairs, 3)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.similarity, expected.astype(np.float32))
    assert found.index[0, 0] == 60 and found.similarity[0, 0] == 1
    assert found.index[10, 0] == 10


def test_more_than_there_are_gives_all(small_blocks):
    queries, references = random_prints(9, 0.02), random_prints(30, 0.02, seed=1)
    found = nearest(queries, references, 99)
    assert found.index.shape == (9, 30)
    assert (np.sort(found.index, axis=1) == np.arange(30)).all()
    left = nearest(references[:2], references[:2], 2, own=np.array([0, 1]))
    assert left.index.tolist() == [[1, -1], [0, -1]] and (left.similarity[:, 1] == 0).all()


def test_no_bits_are_like_nothing_as_in_rdkit():
    nothing, some = np.zeros((2, 256), np.uint8), random_prints(3, 0.02)
    with np.errstate(all="raise"):
        found = nearest(nothing, np.concatenate([nothing, some]), 2)
        assert nearest(some, nothing).similarity.tolist() == [[0]] * 3
    empty = DataStructs.ExplicitBitVect(2048)
    assert DataStructs.TanimotoSimilarity(empty, empty) == 0
    assert found.similarity.tolist() == [[0, 0]] * 2 and found.index.tolist() == [[0, 1]] * 2


@pytest.mark.parametrize("n, r", [(0, 3), (3, 0), (0, 0)])
def test_none_of_either_gives_none(n, r):
    found = nearest(random_prints(n, 0.02), random_prints(r, 0.02), 2)
    assert found.similarity.shape == found.index.shape == (n, min(2, r))


def test_memory_does_not_grow_with_molecules():
    """What is held besides the result: a table of a block, and some blocks of similarities."""
    peaks = []
    for n, r in ((200, 9_000), (1_000, 27_000)):
        queries, references = random_prints(n, 0.02), np.resize(random_prints(500, 0.02), (r, 256))
        nearest(queries[:1], references[:1])  # imports
        tracemalloc.start()
        nearest(queries, references, 5, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 60e6


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"k": 0}, "k is 0"),
        ({"queries": np.zeros((2, 256), bool)}, "queries are bool"),
        ({"references": np.zeros((2, 128), np.uint8)}, "256 bytes, references 128"),
        ({"own": np.zeros(3, int)}, r"shape \(3,\)"),
        ({"own": np.array([0, 2])}, "beyond the 2 references"),
    ],
)
def test_what_cannot_be_is_told(changes, told):
    usual = {"queries": np.zeros((2, 256), np.uint8), "references": np.zeros((2, 256), np.uint8)}
    with pytest.raises(ValueError, match=told):
        nearest(**(usual | changes))


def test_packed_bits_are_ecfp4s(hiv_smiles, moses_smiles):
    molecules = [*hiv_smiles, *moses_smiles] * 3  # more than are packed at once
    packed = packed_ecfp4(molecules)
    assert packed.shape == (1200, 256) and packed.dtype == np.uint8
    np.testing.assert_array_equal(np.unpackbits(packed, axis=1), ecfp4(molecules))
    assert packed_ecfp4([]).shape == (0, 256)


def test_it_is_imported_without_scipy():
    code = "import sys, pipeline.molecules.features.neighbours; print('scipy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
