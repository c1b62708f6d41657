"""Sequences from a split to an evaluation, its page, and a comparison of the frozen arm alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.comparison.run import run_comparison
from pipeline.comparison.settings import CompareSettings
from pipeline.evaluation.run import run_evaluation
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.run import run_splitting
from pipeline.report.run import run_report
from pipeline.report.settings import ReportSettings
from pipeline.runtime.errors import InputError
from pipeline.training.run import run_training
from pipeline.training.settings import TrainSettings
from tests.made_peptides import families, write_fasta


@pytest.fixture(scope="module")
def home(ray_session, encoder_in_process, in_process, tmp_path_factory, peptides) -> Path:
    """A split of 180 sequences by length."""
    folder = tmp_path_factory.mktemp("split")
    every = families(peptides, "AMP") | families(peptides, "UniProt")
    data = write_fasta(folder / "all.fasta", every)
    settings = SplitSettings(data_file=str(data), output=str(folder / "split.json"), by="size")
    run_splitting(settings)
    return folder


@pytest.fixture(scope="module")
def how(home, esm_folder) -> dict:
    return {
        "data_file": str(home / "split.json"), "sequence_column": "sequence",
        "foundation_model": "esm", "weights": str(esm_folder), "precision": "fp32",
        "cache_root": str(home / "store"), "output_dir": str(home / "out"), "device": "cpu",
        "epochs": 2, "hidden_dim": 8, "encoder_workers": 1,
    }  # fmt: skip


def test_an_evaluation_tells_of_sequences(how, home):
    stats = run_training(TrainSettings(**how))
    assert stats["encoder"] == "esm" and stats["detector"] == "dpo"
    made = run_evaluation(EvaluateSettings(
        checkpoint=str(home / "out/checkpoint"), cache_root=how["cache_root"], device="cpu",
        output_dir=how["output_dir"], bootstrap_samples=100,
    ))  # fmt: skip
    # the split is by length, so length alone is as good as can be
    assert made["audit"]["descriptor"]["name"] == "length"
    assert made["audit"]["descriptor"]["auroc"] == pytest.approx(1)
    assert "length (lower is OOD) alone has AUROC 1.000" in made["audit"]["warning"]
    with open(home / "out/detailed_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(row["sequence"] for row in rows) and "smiles" not in rows[0]
    energies = np.array([float(row["energy"]) for row in rows])
    assert np.isfinite(energies).all()
    run_report(ReportSettings(folder=str(home / "out"), output=str(home / "page.html")))
    page = (home / "page.html").read_text()
    worst = rows[int(np.argmax(energies - 1e9 * np.array([int(row["is_ood"]) for row in rows])))]
    assert f">{worst['sequence']}</div>" in page and "cannot be drawn" not in page
    assert "Tanimoto by k-mers to the nearest ID training sequence" in page


def test_the_frozen_arm_is_compared_alone(how, home):
    settings = {**how, "output_dir": str(home / "compared"), "seeds": [1, 2]}
    made = run_comparison(CompareSettings(**settings, bootstrap_samples=100))
    frozen, finetuned = (made["arms"][arm]["metrics"]["auroc"] for arm in ("frozen", "finetuned"))
    assert sorted(frozen["values"]) == ["1", "2"] and not finetuned["values"]
    assert made["improvement"] is None and made["failed"] == []
    assert "movers.png" not in made["figures"]
    assert json.loads((home / "compared/comparison_summary.json").read_text())["seeds"] == [1, 2]
    run_report(ReportSettings(folder=str(home / "compared"), output=str(home / "two.html")))


@pytest.mark.parametrize("kind", [TrainSettings, CompareSettings])
def test_finetuning_is_refused(how, kind):
    run = run_training if kind is TrainSettings else run_comparison
    with pytest.raises(InputError, match="esm cannot be finetuned, only unimol alone"):
        run(kind(**how, finetune_encoder=True))
