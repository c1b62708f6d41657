"""A store and checkpoints of an earlier version are read, and give the results that they gave.

`tests/data/kept` was written by commit aaa706a: jobs.train on 72 molecules of the shipped sample
with a Uni-Mol of two layers, frozen and with the second layer finetuned, and jobs.evaluate.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rdkit

from pipeline.detectors.feature_space import FeatureSpace
from pipeline.evaluation.run import run_evaluation
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.training import run as training_run
from pipeline.training.run import run_training
from pipeline.training.settings import TrainSettings
from tests.commands import REPOSITORY
from tests.conftest import DATA, SAMPLE

KEPT = DATA / "kept"
WEIGHTS = str((KEPT / "weights.pt").relative_to(REPOSITORY))
RDKIT = {json.loads(path.read_text())["rdkit"] for path in KEPT.glob("store/conformers/*/*.json")}
FINETUNING = {"finetune_encoder": True, "freeze_layers": "0", "encoder_lr": 1e-3}

pytestmark = [
    pytest.mark.usefixtures("ray_session", "in_process", "encoder_in_process"),
    pytest.mark.skipif({rdkit.__version__} != RDKIT, reason="another RDKit makes conformers anew"),
]


def usual(tmp_path: Path) -> dict[str, Any]:
    """Settings of a run on a copy of the store."""
    shutil.copytree(KEPT / "store", tmp_path / "store")
    return {
        "weights": WEIGHTS, "cache_root": str(tmp_path / "store"),
        "output_dir": str(tmp_path), "device": "cpu",
    }  # fmt: skip


def column(path: Path, name: str) -> list[float]:
    with open(path, newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["frozen", "finetuned"])
def test_a_kept_checkpoint_gives_the_kept_energies(name, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)  # the checkpoint names its data file from there
    checkpoint = str(KEPT / name / "checkpoint")
    results = run_evaluation(EvaluateSettings(checkpoint=checkpoint, **usual(tmp_path)))
    assert results["encoding_time_seconds"] == 0  # all features were found
    assert results["structures"]["3d"] > 0 and "unknown" not in results["structures"]
    if name == "frozen":  # its store has all features of training
        assert results["p_values"]["calibrated_by"] == "id_val"
    else:
        assert "the store lacks features of" in results["p_values"]["not_made"]
    file = "detailed_predictions.csv"
    energies, kept = (column(folder / file, "energy") for folder in (tmp_path, KEPT / name))
    assert np.ptp(kept) > 1e-3
    np.testing.assert_allclose(energies, kept, rtol=0, atol=1e-6)
    expected = json.loads((KEPT / name / "ood_evaluation_results.json").read_text())
    assert {k: results[k] for k in ("auroc", "aupr", "fpr95")} == {
        k: expected[k] for k in ("auroc", "aupr", "fpr95")
    }


@pytest.mark.parametrize(("name", "changes"), [("frozen", {}), ("finetuned", FINETUNING)])
def test_training_finds_what_is_kept_and_goes_as_it_went(name, changes, tmp_path, monkeypatch):
    """Features of the one, activations of the other; taken as they are, as versions did then."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(training_run, "fit_space", lambda *_: FeatureSpace.unchanged("unimol"))
    stats = run_training(
        TrainSettings(
            data_file=str(SAMPLE), precision="fp32", debug_dataset_size=20, epochs=3, lr=1e-2,
            **changes, **usual(tmp_path),
        )
    )  # fmt: skip
    assert stats["encoded_molecules"] == stats["molecules"]["id_cal"]  # which there were not yet
    config = json.loads((tmp_path / "checkpoint/config.json").read_text())
    assert config["settings"]["weights"] == WEIGHTS  # as given, for machines to come
    for figure in ("loss", "val_auroc", "mean_margin"):
        found, kept = (
            column(folder / "training_dynamics.csv", figure) for folder in (tmp_path, KEPT / name)
        )
        np.testing.assert_allclose(found, kept, rtol=1e-4, atol=1e-5, err_msg=figure)
