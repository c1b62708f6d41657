"""What becomes of conformers before the model: tokens, batches, padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.batching import (
    CPU_MAX_PAIRS,
    max_pairs_for,
    pad_batch,
    plan_batches,
)
from pipeline.encoders.unimol.tokens import ELEMENTS, TOKEN_ORDERS, Vocabulary, tokenize
from pipeline.errors import RowRejected

VOCABULARY = Vocabulary()
LENGTHS = st.lists(st.integers(3, 258), max_size=150)
BOUNDS = {"max_molecules": st.integers(1, 40), "max_pairs": st.integers(1, 200_000)}


@given(lengths=LENGTHS, **BOUNDS)
def test_every_molecule_is_in_one_batch_within_the_bounds(lengths, max_molecules, max_pairs):
    batches = plan_batches(lengths, max_molecules=max_molecules, max_pairs=max_pairs)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= max_molecules
        pairs = len(batch) * max(lengths[i] for i in batch) ** 2
        assert pairs <= max_pairs or len(batch) == 1


@given(lengths=LENGTHS, **BOUNDS)
def test_batches_are_full_and_long_molecules_come_first(lengths, max_molecules, max_pairs):
    batches = plan_batches(lengths, max_molecules=max_molecules, max_pairs=max_pairs)
    planned = [lengths[i] for batch in batches for i in batch]
    assert planned == sorted(lengths, reverse=True)
    for batch in batches[:-1]:
        one_more = (len(batch) + 1) * lengths[batch[0]] ** 2
        assert len(batch) == max_molecules or one_more > max_pairs


def test_a_molecule_above_the_bound_gets_a_batch_of_its_own():
    batches = plan_batches([3, 200, 3], max_molecules=8, max_pairs=100)
    assert [batch.tolist() for batch in batches] == [[1], [0, 2]]


def test_the_cpu_has_a_fixed_bound_on_pairs():
    assert max_pairs_for(torch.device("cpu")) == CPU_MAX_PAIRS


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
