"""Structures beside peptides: scaled by training ones, exchanged, laid end to end."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.encoding.in_store.residue_table import residue_table
from pipeline.folding.features import WIDTH
from pipeline.molecules.sequences import sequence_key
from pipeline.peptides import latents
from pipeline.peptides.holdout import Cut
from pipeline.peptides.latents import exchanged, joined, parts_of, structures_of
from pipeline.runtime.errors import InputError
from pipeline.store.keyed_table import KeyedTable
from tests.peptides.conftest import table_of

SEQUENCES = ("KLKLK", "LLKK", "KKKLLL", "LKLKLKL", "KKLLK")
CUT = Cut(np.array([0, 1, 2]), np.array([3, 4]))
SOURCE = SimpleNamespace(
    sequences=SEQUENCES, keys=[sequence_key(text) for text in SEQUENCES],
    classes=np.zeros(5, np.int64), names=("a",),
)  # fmt: skip


def features_of(which):
    """Features of some of SEQUENCES, with a column and a residue that could not be measured."""
    rng = np.random.default_rng(1)
    made = {SEQUENCES[n]: rng.normal(5, 3, size=(len(SEQUENCES[n]), WIDTH)) for n in which}
    for each in made.values():
        each[:, 2] = np.nan
        each[0, 4] = np.nan
    return made


def test_what_was_not_measured_is_zero_and_the_rest_is_scaled_by_training_peptides(tmp_path):
    features = features_of([0, 2, 3])
    made = structures_of(table_of(tmp_path / "a", features), SOURCE, CUT, False, seed=0)
    assert made[1] is None and made[4] is None
    assert [made[n].shape for n in (0, 2, 3)] == [(n, 2 * WIDTH) for n in (5, 6, 7)]
    assert not made[0][:, [2, WIDTH + 2]].any() and not made[0][0, [4, WIDTH + 4]].any()
    assert made[0][1:, [WIDTH + 4]].all()
    training = np.concatenate([made[0], made[2]]).astype(float)
    values, measured = training[:, :WIDTH], training[:, WIDTH:] > 0
    for column in (0, 4):  # unit variance and no mean where measured
        there = values[measured[:, column], column]
        assert (there.mean(), there.std()) == pytest.approx((0, 1), abs=2e-3)
    features[SEQUENCES[3]] = features[SEQUENCES[3]] * 100
    again = structures_of(table_of(tmp_path / "b", features), SOURCE, CUT, False, seed=0)
    assert (again[0] == made[0]).all() and (again[2] == made[2]).all()
    assert (again[3] != made[3]).any()


@pytest.mark.parametrize("which, part", [([0, 1], "that is held out"), ([3], "trained on")])
def test_a_part_without_any_structure_is_told(tmp_path, which, part):
    with pytest.raises(InputError, match=f"--structure_table: .*{part}; run jobs.fold"):
        structures_of(table_of(tmp_path, features_of(which)), SOURCE, CUT, False, seed=0)


def test_structures_lie_beside_the_latents_of_their_residues(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "check_room", lambda residues, width: None)
    rng = np.random.default_rng(0)
    residues = [rng.normal(size=(len(text), 3)).astype(np.float32) for text in SEQUENCES]
    table = KeyedTable(str(tmp_path / "store"), "residues", {"of": "test"})
    table.write(residue_table(SOURCE.keys, residues, "float16"), "test")
    source = SimpleNamespace(**vars(SOURCE), residues=table)
    known = structures_of(table_of(tmp_path, features_of([0, 2, 3])), source, CUT, False, seed=0)
    train, held_out, scaling = parts_of(source, CUT, known, seed=0)
    assert train.has_structure.tolist() == [True, False, True]
    assert held_out.has_structure.tolist() == [True, False]
    assert (train.structures[:5] == known[0]).all() and not train.structures[5:9].any()
    assert (train.structures[9:] == known[2]).all() and len(train.structures) == 15
    back = scaling.outward(train.latents[5:9].astype(np.float32))
    np.testing.assert_allclose(back, residues[1], atol=5e-3)
    assert parts_of(source, CUT, None, seed=0)[0].structures is None


def test_a_structure_of_another_length_than_its_peptide_is_a_fault():
    with pytest.raises(RuntimeError, match="3 residues, its peptide 4; this is a fault"):
        joined([np.zeros((2, 1)), np.zeros((3, 1))], np.array([0, 2, 6]), 1)


def test_one_structure_alone_stays_with_its_peptide_and_that_is_logged(caplog):
    own = [np.full((5, 2), 1.0), None, np.full((6, 2), 2.0), np.full((7, 2), 3.0), None]
    made = exchanged(own, SOURCE, CUT, seed=0)
    assert made[0][0, 0] == 2 and made[3][0, 0] == 3
    assert "of class a a part of the data has one structure alone" in caplog.text


def test_structures_are_exchanged_within_class_and_part_and_are_of_the_length_they_should():
    lengths = [5, 9, 7, 6, 8, 4, 10, 3]
    own = [None if n == 3 else np.full((n, 2), place) for place, n in enumerate(lengths)]
    source = SimpleNamespace(classes=np.array([0, 0, 0, 0, 1, 1, 1, 1]), names=("a", "b"))
    cut = Cut(np.array([0, 1, 2, 4, 5, 6, 7]), np.array([3]))
    made = exchanged(own, source, cut, seed=0)
    assert made[7] is None and [len(each) for each in made[:7]] == lengths[:7]
    assert [int(each[0, 0]) for each in made[:7]] == [2, 0, 1, 3, 6, 4, 5]
