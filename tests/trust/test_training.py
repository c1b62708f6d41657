"""jobs.train's audit, its error model, and what is said of labels and predictions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rdkit import DataStructs
from rdkit.Chem import MolFromSmiles
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from sklearn.metrics import roc_auc_score

from pipeline.molecules.identity import canonicalize
from pipeline.runtime.errors import InputError
from pipeline.trust.in_checkpoint import read_errors, read_predictions
from pipeline.trust.training import _audit, train_and_audit, warn_of_concentrations
from tests.made_sets import INSIDE, moses, train_settings, values_of, write_set, write_table


@pytest.fixture(scope="module")
def home(ray_session, tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="module")
def trained(home) -> dict:
    """A training with labels, of which some are not known."""
    values = values_of(moses()[:INSIDE])
    values[3] = values[50] = float("nan")
    table = pa.table({"smiles": moses()[:INSIDE], "y": pa.array(values)})
    pq.write_table(table, home / "gaps.parquet")
    file = str(home / "gaps.parquet")
    return train_and_audit(
        train_settings(home, "out", id_file=file, label_column="y", detector="tanimoto")
    )


def test_the_audit_is_of_validation_molecules(home, trained):
    assert json.loads((home / "out/training_stats.json").read_text()) == trained
    rows = pq.read_table(home / "out/checkpoint/training_molecules.parquet").to_pylist()
    maker = GetMorganGenerator(radius=2, fpSize=2048)

    def prints(*roles: str) -> list:
        return [
            maker.GetFingerprint(MolFromSmiles(row["smiles"]))
            for row in rows
            if row["role"] in roles
        ]

    known, inside, outside = prints("id_train"), prints("id_val"), prints("ood_val")
    distances = [
        1 - max(DataStructs.BulkTanimotoSimilarity(each, known)) for each in [*inside, *outside]
    ]
    is_ood = np.repeat([0, 1], [len(inside), len(outside)])
    area = roc_auc_score(is_ood, distances)
    made = trained["audit"]
    assert made["tanimoto"]["auroc"] == pytest.approx(area, abs=1e-6)
    assert trained["best_val_auroc"] == pytest.approx(area, abs=1e-6)
    assert made["tanimoto"]["training_molecules"] == len(known)
    assert made["chosen_on"] == {"id": len(known), "ood": len(prints("ood_train"))}
    assert "says little about the model" in made["warning"]  # the model is this distance


def test_molecules_without_a_label_are_no_part_of_the_error_model(trained):
    errors = trained["errors"]
    assert (errors["labelled"], errors["unlabelled"]) == (INSIDE - 2, 2)
    assert errors["fitted"] + errors["calibrate"] == INSIDE - 2
    assert errors["predictions"] == "forest"


# --- concentrations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "warned"),
    [
        ([0.5, 20.0, 900.0], True),
        ([0.5, None, float("nan"), 900.0], True),
        ([1.0, 1000.0], False),  # three decades, not more
        ([0.0, 1e6], False),
        ([-1.0, 1e6], False),
        ([5.2, 9.1], False),
        ([None, None], False),
        ([], False),
    ],
)
def test_labels_over_more_than_three_decades_draw_a_warning(labels, warned, caplog):
    warn_of_concentrations(pa.chunked_array([pa.array(labels, pa.float64())]))
    assert ("negative logarithm" in caplog.text) == warned


# --- labels and predictions that cannot serve --------------------------------------------------


def test_predictions_without_labels_do_nothing(home):
    file = str(home / "training.csv")
    with pytest.raises(InputError, match="--predictions does nothing without.*--label_column"):
        train_and_audit(train_settings(home, "none", predictions=file))
    assert not (home / "none").exists()


def test_predictions_are_looked_at_before_the_training(home, tmp_path):
    for predictions, told in (
        ("absent.csv", "absent.csv"),
        (str(home / "training.csv"), "no column 'prediction'.*--prediction_column"),
    ):
        settings = train_settings(home, "none", label_column="y", predictions=predictions)
        with pytest.raises(InputError, match=told) as error:
            train_and_audit(settings)
        assert "label_column" not in str(error.value)
        assert not (home / "none").exists()


def test_each_molecule_has_one_prediction_and_others_are_said(home, tmp_path, caplog):
    smiles = ["CCO", "OCC", "CCN", "CCN", "nonsense"]
    file = write_table(tmp_path / "p.csv", smiles=smiles, prediction=[1, 2, 3, 3, 4])
    found = read_predictions(train_settings(home, "none", predictions=str(file)))
    assert found.to_pylist() == [{"smiles": "CCO", "label": 1.0}, {"smiles": "CCN", "label": 3.0}]
    assert "1 molecules have several predictions; the first counts" in caplog.text
    assert read_predictions(train_settings(home, "none")) is None


def test_molecules_without_a_prediction_are_left_out_and_said(home, tmp_path, caplog):
    values = [*values_of(moses()[:INSIDE])]
    values[7] = ""
    file = write_table(tmp_path / "p.csv", smiles=moses()[: INSIDE - 10], prediction=values[:-10])
    stats = train_and_audit(
        train_settings(home, "own", label_column="y", detector="knn", predictions=str(file))
    )
    assert "11 labelled molecules have no prediction of yours: left out" in caplog.text
    assert stats["errors"]["labelled"] == INSIDE - 11
    assert stats["errors"]["predictions"] == str(file)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([2.5] * INSIDE, "all 120 labels are 2.5"),
        (
            [1.0 + i for i in range(50)] + [""] * 70,
            "50 of 120 molecules of .* have a label, and an error model needs at least 60",
        ),
        ([0] * 116 + [1] * 4, "at least 10 molecules of each, there are 4"),
    ],
)
def test_labels_that_tell_no_errors_are_refused(home, tmp_path, values, told):
    file = write_table(tmp_path / "t.csv", smiles=moses()[:INSIDE], y=values)
    settings = train_settings(home, "few", id_file=str(file), label_column="y", detector="tanimoto")
    with pytest.raises(InputError, match=told):
        train_and_audit(settings)


@pytest.mark.parametrize("calibrate", [0, 5])
def test_too_few_labels_to_calibrate_intervals_are_told_when_training(
    home, trained, tmp_path, calibrate
):
    """Else no library could be scored at the usual level."""
    rows = pq.read_table(home / "out/checkpoint/training_molecules.parquet").to_pylist()
    held = [row["smiles"] for row in rows if row["role"] == "id_cal"][calibrate:]
    inside = moses()[:INSIDE]
    values = [
        "" if canonicalize(smiles) in held else value
        for smiles, value in zip(inside, values_of(inside))
    ]
    file = write_table(tmp_path / "t.csv", smiles=inside, y=values)
    settings = train_settings(
        home, "uncalibrated", id_file=str(file), label_column="y", detector="tanimoto"
    )
    with pytest.raises(InputError, match="calibrat"):
        train_and_audit(settings)


def test_a_damaged_or_missing_part_of_the_error_model_is_one_line(home, trained):
    folder = home / "out/checkpoint"
    assert read_errors(str(folder)) is not None
    for file in sorted((folder / "errors").iterdir()):
        whole = file.read_bytes()
        last = whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:]  # another number, or no JSON
        for content in (None, b"", b"garbage", b"{}", b"null", whole[: len(whole) // 2], last):
            if content == whole:  # a forest's numbers are all in its arrays
                continue
            if content is None:
                file.unlink()
            else:
                file.write_bytes(content)
            if content is None and file.name == "config.json":
                assert read_errors(str(folder)) is None  # it completes the folder
            else:
                with pytest.raises(InputError) as error:
                    read_errors(str(folder))
                assert "\n" not in str(error.value)
                damaged = content is not None and file.name != "config.json"
                assert (f"{file.name} is damaged; train again" in str(error.value)) == damaged
        file.write_bytes(whole)
    assert read_errors(str(folder)).keys


def test_an_audit_of_one_molecule_of_a_kind_is_not_made():
    """Its interval could not be resampled."""
    for roles in (["id_val", "ood_val", "ood_val"], ["id_val"] * 3):
        tests = pa.table({"role": roles})
        checkpoint = SimpleNamespace(of_role=lambda *_, t=tests: t, finetuned=False)
        assert "fewer than 2" in _audit(checkpoint, None)["not_made"]
