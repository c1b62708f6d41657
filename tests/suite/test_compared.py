"""Methods compared on the molecules that all of them were tested on."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.suite.cells import Energies, write_cell
from pipeline.suite.results.compared import compared
from pipeline.suite.results.statistics import groups_of
from tests.suite.grids import settings
from tests.suite.test_statistics import row

IS_OOD = np.arange(40) % 2 == 1
IDS = [f"m{i}" for i in range(40)]

pytestmark = pytest.mark.usefixtures("tasks_here")


def energies(wrong: list[int], left_out: int = 0) -> Energies:
    """Those of a method that takes these molecules for the other kind; the last are not there."""
    values = IS_OOD + np.linspace(0, 0.1, 40)
    values[wrong] = 1.5 - 2 * IS_OOD[wrong]
    kept = slice(0, 40 - left_out)
    return Energies(IDS[kept], IS_OOD[kept], values[kept])


def write(folder, **methods: Energies) -> list[dict]:
    """A cell of each method on one data set, and their rows, with the AUROC of all molecules."""
    rows = []
    for name, found in methods.items():
        write_cell(str(folder), name, {}, found)
        area = float(roc_auc_score(found.is_ood, found.energies))
        rows.append(row(1, area, detector=name, cell=name))
    return rows


def summed_up(home, folder, rows: list[dict]) -> dict:
    asked = settings(home, detectors=[each["detector"] for each in rows], cross=False, sweep={})
    return compared(asked, str(folder), groups_of(rows), rows, asked.detectors)


def test_ranks_and_differences_are_of_the_same_molecules(home, tmp_path):
    """On its own molecules `few` is the best; on those of all, which are its own, it is not."""
    whole, few = energies(wrong=[36, 37, 38, 39]), energies(wrong=[2], left_out=10)
    rows = write(tmp_path, whole=whole, few=few)
    assert rows[1]["auroc"] > rows[0]["auroc"]
    found = summed_up(home, tmp_path, rows)
    assert found["ranks"]["average_ranks"] == {"whole": 1, "few": 2}
    common = [roc_auc_score(IS_OOD[:30], each.energies[:30]) for each in (whole, few)]
    assert found["versus_reference"]["few"]["difference"] == pytest.approx(common[1] - common[0])
    assert found["molecules"] == {"a on e": 30}
    assert any("a on e (30 of 40)" in note for note in found["notes"])


def test_a_block_with_too_few_molecules_in_common_is_told_and_not_compared(home, tmp_path):
    whole, last = energies(wrong=[3]), energies(wrong=[])
    last = Energies(last.ids[37:], last.is_ood[37:], last.energies[37:])
    found = summed_up(home, tmp_path, write(tmp_path, whole=whole, last=last))
    assert found["ranks"] is None and found["versus_reference"] == {}
    assert "a on e is not compared: its methods have 1 ID test molecules in common, at least 2 " \
        "are needed" in found["notes"]  # fmt: skip


def test_where_the_reference_has_failed_the_others_are_ranked_and_that_is_said(home, tmp_path):
    rows = write(tmp_path, first=energies([3]), second=energies([3, 4, 5]))
    rows = [row(1, None, detector="gone", cell="gone"), *rows]
    found = summed_up(home, tmp_path, rows)
    assert found["reference"] == "gone" and found["versus_reference"] == {}
    assert found["ranks"]["average_ranks"] == {"first": 1, "second": 2}
    assert "differences are over the 0 of 1 blocks that gone has" in found["notes"]
