"""What becomes of conformers before the model: tokens, batches, padding."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.batching import (
    MOST_PADDING,
    Budget,
    budget_for,
    pad_batch,
    plan_batches,
)
from pipeline.encoders.unimol.model import UniMolConfig
from pipeline.encoders.unimol.tokens import ELEMENTS, TOKEN_ORDERS, Vocabulary, tokenize
from pipeline.encoding.plan import CPU_BATCH
from pipeline.runtime.errors import RowRejected
from tests.conftest import SAMPLE

VOCABULARY = Vocabulary()
LENGTHS = st.lists(st.integers(3, 258), max_size=150)
BUDGETS = st.builds(
    Budget,
    molecules=st.integers(1, 40),
    tokens=st.integers(1, 4_000),
    pairs=st.integers(1, 200_000),
    enough_tokens=st.integers(0, 4_000),
)


def padding_share(lengths: list[int]) -> float:
    return 1 - sum(lengths) / (len(lengths) * max(lengths))


@given(lengths=LENGTHS, budget=BUDGETS)
def test_every_molecule_is_in_one_batch_within_the_budget(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        own = [lengths[i] for i in batch]
        padded = len(own) * max(own)
        assert 1 <= len(own) <= budget.molecules
        if len(own) > 1:
            assert padded <= budget.tokens and padded * max(own) <= budget.pairs
            assert padding_share(own) <= MOST_PADDING or padded <= budget.enough_tokens


@given(lengths=LENGTHS, budget=BUDGETS)
def test_batches_are_full_and_long_molecules_come_first(lengths, budget):
    batches = [[lengths[i] for i in batch] for batch in plan_batches(lengths, budget)]
    assert [n for batch in batches for n in batch] == sorted(lengths, reverse=True)
    for batch, following in zip(batches, batches[1:]):
        more = [*batch, following[0]]
        padded = len(more) * max(more)
        assert (
            len(more) > budget.molecules
            or padded > budget.tokens
            or padded * max(more) > budget.pairs
            or (padding_share(more) > MOST_PADDING and padded > budget.enough_tokens)
        )


def test_a_molecule_above_the_budget_gets_a_batch_of_its_own():
    budget = Budget(molecules=8, tokens=1000, pairs=100, enough_tokens=1000)
    assert [batch.tolist() for batch in plan_batches([3, 200, 3], budget)] == [[1], [0, 2]]


def test_padding_of_the_sample_stays_below_5_percent_in_windows_of_the_flow():
    split = json.loads(gzip.decompress(SAMPLE.read_bytes()))["split"]
    smiles = [row["smiles"] for rows in split.values() for row in rows]
    lengths = [2 + Chem.MolFromSmiles(s).GetNumHeavyAtoms() for s in smiles]
    order = np.random.RandomState(0).permutation(len(lengths))
    lengths = np.minimum(lengths, 258)[order]
    budget = budget_for(torch.device("cpu"), CPU_BATCH, UniMolConfig(), torch.float32)
    batches = [
        lengths[start : start + CPU_BATCH][batch]
        for start in range(0, len(lengths), CPU_BATCH)
        for batch in plan_batches(lengths[start : start + CPU_BATCH], budget)
    ]
    padded = sum(len(batch) * batch.max() for batch in batches)
    assert sum(len(batch) for batch in batches) == len(smiles)
    assert 0 < 1 - lengths.sum() / padded < 0.05
    assert padded / len(batches) > 200  # not by batches too small to be fast


def test_padding_is_at_the_end_and_at_the_origin():
    short = tokenize(["C"], np.ones((1, 3)), VOCABULARY)
    long = tokenize(["C", "O", "N"], np.arange(9).reshape(3, 3), VOCABULARY)
    tokens, coords = pad_batch([short, long], pad=29)
    assert tokens.shape == (2, 5) and tokens.dtype == torch.int64
    assert coords.shape == (2, 5, 3) and coords.dtype == torch.float32
    assert tokens[0].tolist() == [*short.tokens, 29, 29]
    assert not coords[0, 3:].any()
    np.testing.assert_array_equal(tokens[1], long.tokens)
    np.testing.assert_array_equal(coords[1], long.coords)


def test_coordinates_are_centred_between_cls_and_sep_at_the_origin():
    coords = np.array([[1, 2, 3], [3, 2, 1], [5, 5, 5]], dtype=np.float64)
    made = tokenize(["C", "N", "O"], coords, VOCABULARY)
    assert made.tokens.dtype == np.int64 and made.coords.dtype == np.float32
    assert [VOCABULARY.symbols[t] for t in made.tokens] == ["[CLS]", "C", "N", "O", "[SEP]"]
    assert made.coords[0].tolist() == made.coords[-1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(made.coords[1:-1], coords - [3, 3, 3], atol=1e-6)


@pytest.mark.parametrize("order", TOKEN_ORDERS)
def test_each_element_has_its_token_by_symbol_and_by_number(order):
    vocabulary = Vocabulary(TOKEN_ORDERS[order])
    assert len(vocabulary) == 31
    by_symbol = vocabulary.atoms(list(ELEMENTS))
    assert [vocabulary.symbols[t] for t in by_symbol] == list(ELEMENTS)
    numbers = np.array(list(ELEMENTS.values()), dtype=np.uint8)
    np.testing.assert_array_equal(vocabulary.atoms(numbers), by_symbol)


@pytest.mark.parametrize("order", TOKEN_ORDERS)
@pytest.mark.parametrize(
    "atoms", [["Pt", "*", "X", "[PAD]", "[MASK]"], np.array([78, 0, 118, 2, 255])], ids=str
)
def test_unknown_elements_become_unk(order, atoms):
    vocabulary = Vocabulary(TOKEN_ORDERS[order])
    assert vocabulary.atoms(atoms).tolist() == [vocabulary.symbols.index("[UNK]")] * 5


@pytest.mark.parametrize("atoms", [["H", "C", "H", "O"], np.array([1, 6, 1, 8])], ids=str)
def test_hydrogens_are_dropped_before_centring_unless_kept(atoms):
    coords = np.array([[9, 9, 9], [1, 0, 0], [7, 7, 7], [-1, 0, 0]], dtype=np.float32)
    without = tokenize(atoms, coords, VOCABULARY)
    assert [VOCABULARY.symbols[t] for t in without.tokens[1:-1]] == ["C", "O"]
    np.testing.assert_array_equal(without.coords[1:-1], coords[[1, 3]])
    kept = tokenize(atoms, coords, VOCABULARY, keep_hydrogens=True)
    assert [VOCABULARY.symbols[t] for t in kept.tokens[1:-1]] == ["H", "C", "H", "O"]
    np.testing.assert_array_equal(kept.coords[1:-1], coords - coords.mean(axis=0))


@pytest.mark.parametrize(
    ("atoms", "coords", "reason"),
    [
        (["C", "O"], np.zeros((3, 3)), r"shape \(3, 3\), expected \(2, 3\)"),
        (["C", "O"], np.zeros((2, 2)), r"shape \(2, 2\)"),
        (["C", "O"], np.zeros(6), r"shape \(6,\)"),
        (["C"], [[0, np.nan, 0]], "not finite"),
        (["C", "H"], [[0, 0, 0], [np.inf, 0, 0]], "not finite"),
        (["H", "H"], np.zeros((2, 3)), "no atoms left"),
        (np.array([1], dtype=np.uint8), np.zeros((1, 3)), "no atoms left"),
        ([], np.zeros((0, 3)), "no atoms left"),
    ],
)
def test_a_conformer_that_cannot_be_is_refused(atoms, coords, reason):
    with pytest.raises(ValueError, match=reason):
        tokenize(atoms, coords, VOCABULARY)


@pytest.fixture(scope="module")
def encoder(small_weights):
    return load_encoder("unimol", weights=str(small_weights), device="cpu")


def test_a_row_is_prepared_from_flat_coordinates(encoder):
    xyz = np.array([[0, 0, 0], [1.4, 0, 0]], dtype=np.float32)
    row = {"atoms": np.array([6, 8], dtype=np.uint8), "coords": xyz.ravel()}
    expected = encoder.encode_conformers([(["C", "O"], xyz)])
    np.testing.assert_array_equal(encoder.encode_prepared([encoder.prepare(row)]), expected)


@pytest.mark.parametrize(
    "row",
    [
        {"atoms": [6, 8], "coords": [0.0] * 7},
        {"atoms": [6, 8], "coords": [0.0] * 9},
        {"atoms": [6], "coords": [0.0, float("nan"), 0.0]},
        {"atoms": [1, 1], "coords": [0.0] * 6},
        {"atoms": [], "coords": []},
    ],
    ids=str,
)
def test_a_row_that_cannot_be_is_rejected(encoder, row):
    with pytest.raises(RowRejected):
        encoder.prepare(row)
