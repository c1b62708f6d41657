"""The ID training molecules that detectors are fitted on, and the cap on their number."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.training.checkpoints import references
from pipeline.training.checkpoints.references import References, reference_molecules


@pytest.fixture
def molecules() -> pa.Table:
    """90 molecules, every third of them for validation."""
    roles = ["id_val" if i % 3 == 0 else "id_train" for i in range(60)] + ["ood_train"] * 30
    return pa.table({"key": [f"{i:032x}" for i in range(90)], "smiles": ["C"] * 90, "role": roles})


def test_all_id_training_molecules_are_references_as_long_as_they_are_few(molecules):
    found = References(molecules, 1)
    keys = molecules["key"].to_pylist()
    assert found.molecules["key"].to_pylist() == [k for i, k in enumerate(keys[:60]) if i % 3]
    rows = found.rows(keys)
    assert (rows[:60:3] == -1).all() and (rows[60:] == -1).all()
    assert rows[rows >= 0].tolist() == list(range(40))


def test_of_many_a_seeded_sample_is_drawn_and_said(molecules, monkeypatch, caplog):
    monkeypatch.setattr(references, "MOST", 10)
    caplog.set_level("INFO")
    drawn = np.zeros(90)
    for seed in range(100):
        keys = reference_molecules(molecules, seed)["key"].to_pylist()
        assert len(keys) == 10 and keys == sorted(set(keys))
        drawn[[int(key, 16) for key in keys]] += 1
    assert (drawn[:60:3] == 0).all() and (drawn[60:] == 0).all()
    assert drawn[drawn > 0].min() > 8 and (drawn > 0).sum() == 40  # 25 expected
    assert "10 of 40 ID training molecules, drawn at random" in caplog.text
    found = References(molecules, 3)  # the same in training and in scoring
    assert found.molecules.equals(References(molecules, 3).molecules)
    assert sorted(found.rows(molecules["key"].to_pylist()))[-10:] == list(range(10))
