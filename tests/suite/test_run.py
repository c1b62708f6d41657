"""jobs.suite: cells against single runs, failed cells, overlap, a killed suite that goes on."""

from __future__ import annotations

import csv
import html
import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import suite as suite_job
from jobs.cli import main
from pipeline.evaluation.run import train_and_evaluate
from pipeline.report.run import run_report
from pipeline.report.settings import ReportSettings
from pipeline.runtime.errors import InputError
from pipeline.suite.cells import read_energies
from pipeline.suite.results.compared import reference_of
from pipeline.suite.results.tables import tables_of
from pipeline.suite.run import run_suite
from pipeline.suite.settings import SuiteSettings
from pipeline.training.settings import TrainSettings
from tests.commands import assert_one_line, start_job, wait_until
from tests.suite.grids import SHARED, cells_in, of, settings


def csv_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(home) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The suite's summary, and its rows."""
    return run_suite(settings(home)), cells_in(home / "out")


def test_the_report_shows_what_a_suite_wrote(made, home):
    summary, _ = made
    output = str(home / "report.html")
    report = run_report(ReportSettings(folder=str(home / "out"), output=output))
    assert report["failed"] == {}
    page = re.sub(r"<[^>]*>", " ", Path(output).read_text())
    told = html.unescape(" ".join(page.split()))
    for row in tables_of(summary)["ranks"].rows:
        assert " ".join(row) in told
    for each in summary["warnings"]:
        assert each["warning"] in told


def test_there_is_a_row_for_every_cell(made):
    summary, rows = made
    # By data set and test set: knn once, the forest by seed, msp by seed, dpo by seed and β.
    assert len(rows) == 4 * (1 + 2 + 2 + 4)
    assert {row["status"] for row in rows if row["detector"] != "msp"} == {"done"}
    assert all(row["any_seed"] == (row["detector"] == "knn") for row in rows)
    assert {(row["dpo_beta"], row["variant"]) for row in of(rows, detector="dpo")} == {
        (0.1, "dpo_beta=0.1"), (1.0, "dpo_beta=1"),
    }  # fmt: skip
    assert {row["variant"] for row in of(rows, detector="knn")} == {""}
    assert summary["cells"] == {"done": 28, "failed": 8, "fitted_once_for_all_seeds": 4}
    assert all(row["heads_together"] == 4 for row in of(rows, detector="dpo"))


def test_failed_cells_are_told_and_the_others_count(made, home):
    summary, rows = made
    failed = of(rows, status="failed")
    assert {row["detector"] for row in failed} == {"msp"} and len(failed) == 8
    assert all("learns from" in row["reason"] or "label" in row["reason"] for row in failed)
    assert sum(each["cells"] for each in summary["failed"]) == 8
    assert all(row["auroc"] is None for row in failed)
    ranked = summary["statistics"]["ranks"]["average_ranks"]
    assert "msp" in summary["statistics"]["left_out"] and "msp" not in ranked and len(ranked) == 4
    assert "failed" in (home / "out/tables/auroc.md").read_text()


def test_a_cell_is_what_train_and_evaluate_find(made, home, tmp_path):
    alone = TrainSettings(
        data_file=str(home / "a.json"), foundation_model="descriptors", detector="dpo", seed=2,
        output_dir=str(tmp_path), cache_root=str(home / "store"), **SHARED,
    )  # fmt: skip
    expected = train_and_evaluate(alone)
    [row] = of(made[1], data="a", test_data="a", detector="dpo", seed=2, dpo_beta=0.1)
    for name in ("auroc", "aupr", "fpr95", "id_mean_energy", "ood_mean_energy"):
        assert row[name] == pytest.approx(expected[name], abs=1e-5)
    assert row["best_descriptor"] == expected["audit"]["descriptor"]["name"]
    assert row["best_descriptor_auroc"] == pytest.approx(expected["audit"]["descriptor"]["auroc"])
    assert row["tanimoto_auroc"] == pytest.approx(expected["audit"]["tanimoto"]["auroc"])
    predicted = csv_rows(tmp_path / "detailed_predictions.csv")
    energies = read_energies(str(home / "out"), row["cell"])
    assert energies.ids == [each["id"] for each in predicted]
    found = np.array([float(each["energy"]) for each in predicted])
    assert energies.energies == pytest.approx(found, abs=1e-5)


def test_test_molecules_that_training_saw_are_left_out_and_counted(made, home):
    _, rows = made
    dropped = {(row["data"], row["test_data"]): row["dropped_test_molecules"]
               for row in of(rows, status="done")}  # fmt: skip
    assert dropped == {("a", "a"): 0, ("b", "b"): 0, ("a", "b"): 3, ("b", "a"): 0}
    assert {row["id_molecules"] for row in of(rows, data="a", test_data="b", status="done")} == {7}
    assert "(−3)" in (home / "out/tables/cross_auroc.md").read_text()


def test_the_summary_has_the_earlier_scripts_keys(made, home):
    summary = json.loads((home / "out/summary.json").read_text())
    group = next(g for g in summary["groups"] if g["detector"] == "dpo")
    assert group["num_seeds"] == 2
    for name in ("auroc", "aupr", "fpr95"):
        values = list(group["metrics"][name]["values"].values())
        assert group["metrics"][name]["mean"] == pytest.approx(np.mean(values))
        assert group["metrics"][name]["std"] == pytest.approx(np.std(values, ddof=1))
    cross = summary["cross_dataset_metrics"]["descriptors/knn"]
    assert cross["a"]["b"]["dropped_test_molecules"] == 3
    assert cross["b"]["a"]["metrics"]["auroc"].keys() == {"mean", "std"}
    assert summary["statistics"]["reference"] == "knn"
    assert len(csv_rows(home / "out/cells.csv")) == 36
    tables = {path.name for path in (home / "out/tables").iterdir()}
    assert {f"{name}.{end}" for name in ("auroc", "fpr95", "ranks", "costs", "cross_auroc")
            for end in ("md", "tex")} <= tables  # fmt: skip


def stamps(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (output / "cells").glob("*.json")}


def without_costs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    cost = ("seconds", "_gb", "heads_together")
    return [{k: v for k, v in row.items() if not k.endswith(cost)} for row in rows]


def test_a_killed_suite_goes_on(made, home, tmp_path):
    """Killed after its first cell; what it had written stands, and the rest is as undisturbed."""
    asked = settings(home, output_dir=str(tmp_path / "out"))
    flags = {"config": tmp_path / "suite.yaml"}
    own = ("data", "encoders", "detectors", "seeds", "cross", "sweep", "output_dir", "cache_root",
           "bootstrap_samples", "parallel_runs")  # fmt: skip
    content = {name: getattr(asked, name) for name in (*SHARED, *own)}
    flags["config"].write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    output = tmp_path / "out"
    output.mkdir()
    (output / "hold").write_text("1")
    process = start_job("suite", tmp_path, flags, held=True)
    wait_until(lambda: stamps(output), process, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (output / "hold").unlink()
    before = stamps(output)
    assert 0 < len(before) < 28
    run_suite(asked)
    after = stamps(output)
    assert {name: after[name] for name in before} == before and len(after) == 28
    rows = cells_in(output)
    for mine, whole in zip(without_costs(rows), without_costs(made[1]), strict=True):
        assert mine == pytest.approx(whole, nan_ok=True, abs=1e-5)
    assert not (output / ".ray_train").exists()


def test_the_same_command_makes_only_what_failed_and_ends_with_1(made, home, capsys):
    """In the same folder, of fewer data sets and detectors."""
    before = stamps(home / "out")
    argv = ["--data", str(home / "a.json"), "--encoders", "descriptors", "--detectors", "knn",
            "msp", "--seeds", "1", "--ood_val_by", "molecule", "--epochs", "3", "--hidden_dim",
            "16", "--device", "cpu", "--bootstrap_samples", "100", "--cache_root",
            str(home / "store"), "--output_dir", str(home / "out")]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(SuiteSettings, suite_job.suite, "suite", argv)
    out = capsys.readouterr().out
    assert ended.value.code == 1
    assert "descriptors/knn" in out and "failed      msp on descriptors, a: 1 cells" in out
    assert "best descriptor" in out and "1 done, 1 failed" in out
    assert stamps(home / "out") == before
    # Of the earlier grid's tables, none is left beside this one's.
    assert (home / "out/tables/auroc.md").exists()
    assert not (home / "out/tables/cross_auroc.md").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "required: --data"),
        (("--data", "none.json"), "none.json"),
        (("--data", "drugood:lbap_core_ic50_size"), "None is downloaded"),
        (("--data", "a.json", "--colour", "red"), "--colour"),
    ],
)
def test_wrong_input_is_one_line(home, capsys, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    code = main(SuiteSettings, suite_job.suite, "suite", list(words))
    assert_one_line(code, capsys.readouterr().err, "suite", told)


@pytest.mark.parametrize(
    ("asked", "told"),
    [("lof", "is no method of this suite; there are: knn, dpo"), ("dpo", "is several methods")],
)
def test_a_reference_that_is_no_method_is_told(asked, told):
    methods = ["knn", "dpo (lr=1)", "dpo (lr=2)"]
    with pytest.raises(InputError, match=f"--reference {asked}: {told}"):
        reference_of(asked, methods, ["knn", "dpo"])
    assert reference_of("dpo (lr=2)", methods, []) == "dpo (lr=2)"
    assert reference_of(None, methods, ["dpo", "knn"]) == "dpo (lr=1)"
