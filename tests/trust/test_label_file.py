"""Measured values of a file of their own, found by molecule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.runtime.errors import InputError
from pipeline.trust.settings import TrustSettings
from pipeline.trust.table import read_predictions

COUNT = 30


def settings(tmp_path, measured: pd.DataFrame, **more) -> TrustSettings:
    """Of predictions 0, 1, … of alkanes, whose order in the file is reversed."""
    table = pd.DataFrame({"smiles": ["C" * i for i in range(1, COUNT + 1)]})
    table["prediction"] = np.arange(COUNT)
    table.iloc[::-1].to_csv(tmp_path / "scores.csv", index=False)
    measured.to_csv(tmp_path / "measured.csv", index=False)
    return TrustSettings(
        data_file=str(tmp_path / "scores.csv"), label_file=str(tmp_path / "measured.csv"),
        prediction_column="prediction", label_column="y", **more,
    )  # fmt: skip


def test_values_go_to_their_molecules_however_they_are_written(tmp_path):
    spelled = ["[CH4]", *("C" + "(C)" * (i - 1) for i in (2,)), *("C" * i for i in range(3, 26))]
    measured = pd.DataFrame({"smiles": [*spelled, "O", "CC"], "y": [*range(100, 125), 1.0, 5.0]})
    found = read_predictions(settings(tmp_path, measured))
    assert sorted(zip(found.prediction, found.label)) == [(i, 100 + i) for i in range(25)]
    assert found.left_out == {"no label": COUNT - 25}
    assert any("1 rows of --label_file give a molecule another value" in n for n in found.notes)


def test_a_file_without_the_column_is_told(tmp_path):
    with pytest.raises(InputError, match=r"measured.csv: there is no column 'y'.*--label_column"):
        read_predictions(settings(tmp_path, pd.DataFrame({"smiles": ["C"], "z": [1]})))
