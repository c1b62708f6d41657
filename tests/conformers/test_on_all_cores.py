"""Conformers from child processes without Ray: the same, of the longest first, none left behind."""

from __future__ import annotations

import weakref

import numpy as np
import psutil
import pyarrow as pa
import pytest

from pipeline.conformers import on_all_cores
from pipeline.conformers.expected_cost import conformer_seconds
from pipeline.conformers.on_all_cores import children_for, embed_all, embed_here
from pipeline.conformers.rdkit_embedder import embed
from pipeline.runtime.errors import RowRejected
from tests.conformers.test_embedders import HANGS


def seconds_of(smiles: list[str]) -> np.ndarray:
    return conformer_seconds(pa.array(smiles))


@pytest.fixture
def no_child_is_left():
    before = children()
    yield
    assert children() <= before


def children() -> set[int]:
    every = psutil.Process().children()
    return {child.pid for child in every if "child_process" in " ".join(child.cmdline())}


@pytest.fixture(scope="module")
def some(hiv_smiles) -> list[str]:
    return sorted(hiv_smiles, key=len)[:12]


def test_conformers_are_those_of_this_process(some, no_child_is_left):
    made = dict(embed_all(some, seconds_of(some), 2, hydrogens=False))
    assert sorted(made) == list(range(12))
    for place, text in enumerate(some):
        expected = embed(text)
        np.testing.assert_array_equal(made[place].atoms, expected.atoms)
        np.testing.assert_array_equal(made[place].coords, expected.coords)


def test_the_longest_begin(some, no_child_is_left):
    large = "CC(C)Cc1ccc(cc1)C(C)C(=O)OCCCCCCCCC"
    made = [place for place, _ in embed_all([*some, large], seconds_of([*some, large]), 1,
                                            hydrogens=False)]  # fmt: skip
    assert made[0] == 12


def test_a_molecule_that_hangs_is_rejected_by_name(some, no_child_is_left):
    smiles = [*some[:3], HANGS, *some[3:6]]
    with pytest.raises(RowRejected, match="took more than 2 s") as raised:
        list(embed_all(smiles, seconds_of(smiles), 2, hydrogens=False, limit_seconds=2))
    assert raised.value.__notes__ == [f"SMILES 3 of those given: {HANGS}"]


def test_the_first_without_a_conformer_is_told(some, no_child_is_left):
    smiles = [*some[:2], "[H][H]", some[3], "[H+]"]
    with pytest.raises(RowRejected, match="no atoms left") as raised:
        list(embed_all(smiles, seconds_of(smiles), 2, hydrogens=False))
    assert "SMILES 2 of" in raised.value.__notes__[0]


def test_what_does_not_parse_is_told_before_anything_is_made(some):
    made = embed_all([*some, "C1CC"], seconds_of([*some, "C1CC"]), 2, hydrogens=False)
    with pytest.raises(RowRejected, match="does not parse") as raised:
        next(made)
    assert "SMILES 12 of those given: C1CC" in raised.value.__notes__[0]
    with pytest.raises(RowRejected, match="does not parse") as raised:
        embed_here(["CC", "C1CC"], hydrogens=False)
    assert "SMILES 1 of those given: C1CC" in raised.value.__notes__[0]


def test_who_stops_half_way_leaves_no_child_behind(some, no_child_is_left):
    smiles = [*some[:4], HANGS, HANGS]
    seconds = seconds_of(smiles)
    seconds[:4] += 1000  # those that hang come last
    made = embed_all(smiles, seconds, 2, hydrogens=False)
    for _ in range(4):
        next(made)
    made.close()


def test_conformers_that_were_taken_are_not_kept():
    class Made:
        pass

    class Embedder:
        def embed(self, smiles):
            return Made()

        def end(self):
            pass

        close = end

    taken = []
    for _, made in on_all_cores._shared_out(["C"] * 50, range(50), [Embedder()]):
        taken.append(weakref.ref(made))
        kept = sum(one() is not None for one in taken)
    assert len(taken) == 50 and kept <= 3


def test_few_molecules_are_not_worth_child_processes(monkeypatch):
    monkeypatch.setattr(on_all_cores, "usable_cores", lambda: 8)
    assert children_for(seconds_of(["CCO", "c1ccccc1"])) < 2
    assert children_for(np.full(3, 100.0)) == 3
    assert children_for(np.full(10_000, 0.1)) == 8
    assert children_for(np.empty(0)) < 2
