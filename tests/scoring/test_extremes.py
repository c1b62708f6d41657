"""Counts of a scored library, whatever its rejected rows say of themselves."""

from __future__ import annotations

import pyarrow as pa

from pipeline.molecules.rejected import REJECTED
from pipeline.scoring.extremes import write_extremes
from pipeline.scoring.steps import REJECTED_FOLDER, SCORES, SCORES_FOLDER, chunk_name, write


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
