"""Pages of every kind of folder: what is in them, what is lacking, what is refused."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from jobs.cli import main
from jobs.report import report
from pipeline.report.folders import look_into
from pipeline.report.reading import Folder
from pipeline.report.settings import ReportSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.text import records_csv
from tests.commands import assert_one_line
from tests.report.made_folders import (
    HOSTILE,
    write_comparison,
    write_evaluation,
    write_json,
    write_library,
    write_training,
)
from tests.report.pages import page_of, text_of


def test_it_needs_no_network_and_runs_no_text_of_a_user(page):
    assert re.findall(r"""(?:src|href)=["']?https?:""", page.text) == []
    assert "@import" not in page.text and "url(" not in page.text
    assert HOSTILE not in page.text
    assert page.text.count("<script>") == 1
    assert page.text.count("&lt;script&gt;alert(") >= 3  # an id, a reason, a failed cell
    drawings = re.findall(r'<svg class="(?!swatch)', page.text)
    assert len(drawings) == page.made["figures"] > 50


def test_every_drawing_says_what_it_is(page):
    heads = re.findall(r"<svg[^>]*>", page.text)
    assert all('role="img" aria-label="' in h or 'aria-hidden="true"' in h for h in heads)


def test_sections_stand_in_order_each_with_its_folder(page):
    assert page.made["sections"] == [
        ("Scored library", "screen"), ("Suite", "suite"),
        ("Frozen against finetuned encoder", "comparison"), ("Evaluation", "tested"),
        ("Training", "fitted"), ("Training", "screen/training"),
    ]  # fmt: skip
    assert page.made["failed"] == {}


def test_an_evaluation_without_domains_says_so(tmp_path):
    write_evaluation(tmp_path, domain=[None] * 60)
    assert "The test molecules have no domains." in text_of(page_of(tmp_path))


def test_an_evaluation_without_p_values_says_so_and_one_with_them_uses_them(tmp_path):
    write_evaluation(tmp_path)
    assert "This evaluation has no p-values of its own" in text_of(page_of(tmp_path))
    write_evaluation(tmp_path, p_value=np.full(60, 0.01))
    told = text_of(page_of(tmp_path))
    assert "no p-values of its own" not in told
    assert re.search(r"0 ID 8 −?-?[\d.]+ [\d.]+ 100 %", told)  # all of a domain have p ≤ 0.05


def test_a_detector_that_is_fitted_at_once_has_no_curves_and_only_dpo_weighs_pairs(tmp_path):
    write_training(tmp_path / "knn", "knn", epochs=0)
    write_training(tmp_path / "bce", "bce")
    told = text_of(page_of(tmp_path))
    assert "There are no curves: this detector is fitted at once." in told
    assert told.count("Weights of hard pairs are not shown") == 1


def test_runs_below_a_comparison_or_suite_are_no_sections_of_their_own(page):
    kinds = [kind.name for kind, _ in look_into(Folder(str(page.file.parent))).parts]
    assert kinds.count("an evaluation") == 1 and kinds.count("a training") == 2


def test_one_part_that_is_damaged_leaves_the_others(tmp_path, caplog):
    write_training(tmp_path / "one")
    write_evaluation(tmp_path / "two")
    (tmp_path / "two/ood_evaluation_results.json").write_text("{")
    told = text_of(page_of(tmp_path))
    assert "This part cannot be made:" in told and "validation AUROC 0.900" in told
    assert "two: its part of the page cannot be made" in caplog.text
    shutil.rmtree(tmp_path / "one")
    with pytest.raises(InputError, match="no part of the page can be made: .* is no JSON"):
        page_of(tmp_path)


def test_what_another_version_left_out_is_named(tmp_path):
    write_training(tmp_path / "one")
    write_json(tmp_path / "two/training_stats.json", {"detector": "dpo"})
    told = text_of(page_of(tmp_path))
    assert "cannot be made: its files lack best_val_auroc, as of another version." in told


def test_folders_with_a_dot_are_looked_into_and_those_that_cannot_be_are_told(
    tmp_path, monkeypatch
):
    write_training(tmp_path / "lr_0.001")
    write_training(tmp_path / "shut")
    (tmp_path / "reports").mkdir()
    names = Folder.names

    def refused(self):
        if self.place == "shut":
            raise PermissionError(13, "Permission denied", self.path)
        return names(self)

    monkeypatch.setattr(Folder, "names", refused)
    told = text_of(page_of(tmp_path))
    assert told.count("validation AUROC 0.900") == 1 and "lr_0.001" in told
    assert "shut cannot be looked into: [Errno 13] Permission denied" in told
    assert "Not shown in this page: reports." in told


def test_a_damaged_run_of_a_comparison_leaves_the_others(tmp_path):
    write_comparison(tmp_path)
    (tmp_path / "frozen/seed_2/ood_evaluation_results.json").write_text('{"auroc": 0.')
    told = text_of(page_of(tmp_path))
    assert "The run frozen/seed_2 is not in the figures: " in told and "ROC" in told
    assert "Energies of 2 seeds together" in told  # of the finetuned encoder


def test_energies_that_are_no_numbers_are_left_out_and_counted(tmp_path):
    made = write_evaluation(tmp_path)
    assert made["id_molecules"] == 30
    table = Folder(str(tmp_path)).columns("detailed_predictions.csv").to_pylist()
    table[0]["energy"] = float("nan")
    (tmp_path / "detailed_predictions.csv").write_bytes(records_csv(table, {}))
    told = text_of(page_of(tmp_path))
    assert "1 test molecules have an energy that is no number; they are left out" in told
    assert "ID (29)" in told and "OOD (30)" in told


def test_too_few_calibration_molecules_for_a_small_p_value_are_told(tmp_path):
    write_evaluation(tmp_path, p_value=np.full(60, 0.1))
    results = json.loads((tmp_path / "ood_evaluation_results.json").read_text())
    p = {"alpha": 0.05, "id_share": 0.0, "ood_share": 0.0, "calibrated_by": "id_cal"}
    for count, small in ((18, True), (19, False)):
        changed = results | {"p_values": p | {"calibration_molecules": count}}
        write_json(tmp_path / "ood_evaluation_results.json", changed)
        assert ("No p-value can be below" in text_of(page_of(tmp_path))) == small


def test_detectors_that_could_not_be_fitted_are_told(tmp_path):
    write_training(tmp_path)
    stats = json.loads((tmp_path / "training_stats.json").read_text())
    write_json(tmp_path / "training_stats.json", stats | {"left_out": {"msp": "no labels"}})
    assert "msp could not be fitted: no labels." in text_of(page_of(tmp_path))


def test_a_damaged_part_of_scores_stays_where_it_is(tmp_path):
    write_library(tmp_path / "a")
    write_training(tmp_path / "b")
    part = tmp_path / "a/scores/part-00000-0000001.parquet"
    part.write_bytes(b"PAR1 nothing")
    assert "part-00000-0000001.parquet cannot be read" in text_of(page_of(tmp_path))
    assert part.exists()


def test_a_rerun_writes_the_same_page_and_takes_no_page_for_a_result(tmp_path):
    write_training(tmp_path)
    first, second = (re.sub(r"made \d{4}-[^<]*", "", page_of(tmp_path)) for _ in range(2))
    assert first == second
    other = tmp_path / "elsewhere/page.html"
    page_of(tmp_path, output=str(other), title="Monday")
    assert "<title>Monday</title>" in other.read_text()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (None, "is not there; give the --output_dir of a job"),
        ("empty", "is empty"),
        ("file", "is a file, not a folder"),
        ("unknown", "holds nothing that a page can be made of: it has a.txt; known are scores"),
    ],
)
def test_a_folder_that_holds_nothing_is_one_line(tmp_path, capsys, make, told):
    folder = tmp_path / "outputs"
    if make == "file":
        folder.write_text("")
    elif make:
        folder.mkdir()
    if make == "unknown":
        (folder / "a.txt").write_text("")
    code = main(ReportSettings, report, "report", ["--folder", str(folder)])
    assert_one_line(code, capsys.readouterr().err, "report", "--folder", told)


def test_the_command_ends_with_the_page(tmp_path, capsys):
    write_training(tmp_path)
    assert main(ReportSettings, report, "report", ["--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "holds    Training" and lines[-1] == f"report   {tmp_path}/report.html"
    assert_one_line(
        main(ReportSettings, report, "report", ["--folder", str(tmp_path), "--molecules", "-1"]),
        capsys.readouterr().err, "report", "--molecules must be at least 0",
    )  # fmt: skip
