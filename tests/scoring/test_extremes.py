"""Counts of a scored library, whatever its rejected rows say of themselves."""

from __future__ import annotations

import sys

import pyarrow as pa
import pytest

from pipeline.molecules.rejected import REJECTED
from pipeline.scoring.chunks import chunk_name
from pipeline.scoring.levels import SCORES
from pipeline.scoring.output.extremes import write_extremes
from pipeline.scoring.steps import REJECTED_FOLDER, SCORES_FOLDER, write


def test_rejected_rows_are_counted_by_the_kind_of_their_reason(tmp_path):
    for number in range(3):
        rows = [
            {"id": str(i), "reason": f"text after a blank: 'x{number}:{i}'"} for i in range(4000)
        ] + [{"id": "z", "reason": "SMILES does not parse"}]
        name = chunk_name(0, number)
        write(str(tmp_path), SCORES_FOLDER, name, SCORES.empty_table())
        write(str(tmp_path), REJECTED_FOLDER, name, pa.Table.from_pylist(rows, schema=REJECTED))
    found = write_extremes(str(tmp_path), 0)
    assert (found.rows, found.scored, found.rejected) == (12_003, 0, 12_003)
    assert found.reasons == {"text after a blank": 12_000, "SMILES does not parse": 3}


@pytest.mark.parametrize("can_draw", [True, False])
def test_a_machine_that_cannot_draw_says_so_and_has_the_table(
    tmp_path, monkeypatch, caplog, can_draw
):
    rows = [
        {"id": "a", "smiles": "CCO", "energy": 1.0, "p_value": 0.5, "is_ood": False},
        {"id": "b", "smiles": "CCN", "energy": 2.0, "p_value": 0.1, "is_ood": True},
    ]
    name = chunk_name(0, 0)
    write(str(tmp_path), SCORES_FOLDER, name, pa.Table.from_pylist(rows, schema=SCORES))
    write(str(tmp_path), REJECTED_FOLDER, name, REJECTED.empty_table())
    if not can_draw:
        monkeypatch.setitem(sys.modules, "pipeline.molecules.drawing.drawings", None)
    assert write_extremes(str(tmp_path), 1).ood == 1
    assert (tmp_path / "top.csv").read_text().count("\n") == 3
    assert (tmp_path / "most_ood.png").exists() == can_draw
    assert ("no pictures are drawn" in caplog.text) == (not can_draw)
