"""jobs.augment from a table to a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from jobs import augment as job
from jobs.cli import main
from pipeline.augmentation import run
from pipeline.augmentation.fits import fit_all, fit_one
from pipeline.augmentation.intervals import TOO_FEW
from pipeline.augmentation.methods import METHODS
from pipeline.augmentation.run import run_augmentation
from pipeline.augmentation.summary_text import summary_text
from tests.augmentation.made_table import COLUMNS, columns, settings_of
from tests.commands import assert_one_line


@pytest.fixture(scope="module", autouse=True)
def fits_here():
    """Classifiers are fitted in this process, which saves the start of Ray's workers."""

    def here(data, settings):
        return [
            fit_one(data, method, seed, settings)
            for method in settings.all_methods
            for seed in settings.all_seeds
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "fit_all", here)
        yield


@pytest.fixture(scope="module")
def made(ray_session, tmp_path_factory):
    settings = settings_of(tmp_path_factory.mktemp("augment") / "t.parquet")
    return settings, run_augmentation(settings)


def test_the_summary_and_the_table_say_the_same(made):
    settings, summary = made
    folder = settings.output_dir
    rows = pyarrow.csv.read_csv(f"{folder}/augmentation_results.csv").to_pylist()
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, seed) for method in METHODS for seed in (42, 43)
    ]
    methods = summary["tests"]["iid_test"]["methods"]
    for metric in ("f1", "mcc", "auroc", "aupr"):
        mean = {m: np.mean([r[metric] for r in rows if r["method"] == m]) for m in METHODS}
        for method, found in methods.items():
            assert found["metrics"][metric]["mean"] == pytest.approx(mean[method])
            if method != "nothing":
                gain = found["difference"][metric]
                assert gain["mean"] == pytest.approx(mean[method] - mean["nothing"])
                assert gain["ci95"][0] <= gain["ci95"][1]
    assert methods["nothing"]["difference"] is None
    assert summary["tests"]["iid_test"]["less_rival"].keys() == {"generated", "generated_ungated"}
    assert json.loads(Path(folder, "augmentation_summary.json").read_text()) == summary


def test_every_row_and_every_candidate_is_accounted_for(made):
    settings, summary = made
    rows = sum(counts["rows"] for counts in summary["parts"].values())
    assert rows + summary["rejected"] + summary["rows_of_other_splits"] == summary["rows_in"] == 600
    assert summary["rows_to_add"] == 320 - 40
    generator = summary["generator"]
    assert generator["learned_from"] + generator["held_out"] == 360
    methods = summary["tests"]["iid_test"]["methods"]
    for seed, counts in generator["by_seed"].items():
        assert counts["returned"] + counts["shortfall"] == counts["asked"] == 280
        assert methods["generated"]["rows"][seed] == 360 + counts["returned"]
        assert methods["smote"]["rows"][seed] == methods["oversampling"]["rows"][seed] == 640
        assert methods["nothing"]["rows"][seed] == 360
    assert pq.read_table(f"{settings.output_dir}/rejected.parquet").num_rows == 0
    for picture in ("differences.png", "learning.png"):
        content = Path(settings.output_dir, picture).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) > 10_000


def test_a_worker_and_this_process_come_to_the_same(made, tmp_path, monkeypatch):
    settings, summary = made
    again = settings_of(tmp_path / "t.parquet", methods=[], seeds=1)
    monkeypatch.setattr(run, "fit_all", fit_all)
    found = run_augmentation(again)
    assert found["generator"] is None  # nobody asked for it
    before, after = (each["tests"]["iid_test"]["methods"] for each in (summary, found))
    assert list(after) == ["nothing"] and found["classifiers"] == 1
    for metric, of in after["nothing"]["metrics"].items():
        assert of["values"]["42"] == before["nothing"]["metrics"][metric]["values"]["42"]


def test_the_command_says_what_is_missing(ray_session, tmp_path, capsys):
    settings = settings_of(
        tmp_path / "t.parquet", methods=["generated"], seeds=1, quality_threshold=0.95,
        max_attempts=1, sample_multiplier=1.0,
    )  # fmt: skip
    job.augment(settings)
    told = capsys.readouterr().out
    assert "generated rows of a seed are missing" in told and "none is filled in" in told
    assert "the threshold has the highest MCC in validation" in told
    assert "2 of 2 classifiers were ended by the limit of their training" in told
    for title in ("F1", "MCC", "AUROC", "AUPR"):
        assert any(line.startswith(f"{title:6} ") and ("shown" in line or "helps" in line
                   or "harms" in line) for line in told.splitlines())  # fmt: skip
    assert Path(settings.output_dir, "augmentation_summary.txt").read_text().strip() in told


def test_bad_input_is_one_line(tmp_path, capsys):
    settings = settings_of(tmp_path / "t.parquet")
    flags = {"data_file": settings.data_file, **COLUMNS, "test_split": "nope", "seeds": "[1,2]",
             "methods": "smote", "rare_class": "site"}  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    code = main(job.AugmentSettings, job.augment, "augment", words)
    assert_one_line(code, capsys.readouterr().err, "augment", "nope", "--test_split")


def test_one_rare_group_and_one_seed_show_nothing(ray_session, tmp_path):
    made = columns()
    kind = [
        "other" if part == "test" and row != 45 else each
        for row, (each, part) in enumerate(zip(made["kind"], made["part"]))
    ]
    settings = settings_of(tmp_path / "t.parquet", {"kind": kind}, methods=["smote"], seeds=1)
    summary = run_augmentation(settings)
    test = summary["tests"]["iid_test"]
    assert test["rare"] == 1 and 0 < test["resamples_without_a_class"] < 100
    verdicts = {each["verdict"] for each in test["methods"]["smote"]["difference"].values()}
    assert verdicts == {TOO_FEW}
    told = "\n".join(summary_text(summary))
    assert "class site is in 1 groups" in told and "resamples have not both classes" in told
    assert "F1     too few rare rows to tell: smote" in told and "one seed: how much" in told
