"""Cells of a suite as means, against pandas."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from pipeline.report.cells import matrix, means_of
from tests.report.made_folders import suite_cells


def test_means_and_spreads_are_those_of_pandas_and_failed_cells_do_not_count():
    cells = suite_cells()
    frame = cells.to_pandas()
    frame = frame[frame["status"] == "done"]
    swept = frame["variant"].map(lambda text: f" ({text})" if text else "")
    frame["method"] = frame["encoder"] + "/" + frame["detector"] + swept
    wanted = frame.groupby(["data", "test_data", "method"])["auroc"].agg(["mean", "std", "size"])
    found = means_of(cells)
    assert len(found) == len(wanted) == 54
    for each in found:
        mean, std, size = wanted.loc[(each.data, each.test_data, each.method)]
        assert (each.mean("auroc"), each.spread("auroc")) == pytest.approx((mean, std))
        assert len(each.values["auroc"]) == size
    assert min(len(each.values["auroc"]) for each in found) == 2


def test_a_matrix_holds_own_tests_alone_and_says_what_is_missing():
    cells = suite_cells(data=2, failed=False)
    found = means_of(cells.filter(pc.equal(cells["detector"], "knn")))
    areas = matrix(found, ["set_0", "set_1"], ["minimol/knn", "unimol/knn"], "auroc")
    (own,) = [
        each for each in found
        if (each.data, each.test_data, each.method) == ("set_1", "set_1", "unimol/knn")
    ]  # fmt: skip
    assert areas[1, 1] == own.mean("auroc") and np.isfinite(areas).all()
    lone = [each for each in found if (each.data, each.method) != ("set_1", "unimol/knn")]
    lone = matrix(lone, ["set_0", "set_1"], ["minimol/knn", "unimol/knn"], "auroc")
    assert np.isnan(lone[1, 1]) and np.isfinite(lone).sum() == 3
