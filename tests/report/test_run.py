"""Pages of every kind of folder: what is in them, what they say is lacking, what is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from jobs.report import report
from pipeline.report.folders import look_into
from pipeline.report.reading import Folder
from pipeline.report.run import run_report
from pipeline.report.scored import read_scored
from pipeline.report.settings import ReportSettings
from pipeline.runtime.errors import InputError
from tests.commands import assert_one_line
from tests.report.made_folders import (
    HOSTILE,
    THRESHOLD,
    suite_cells,
    write_evaluation,
    write_library,
    write_suite,
    write_training,
)


def page_of(folder: Path, **settings) -> str:
    usual = {"molecules": 1, "map_molecules": 12}
    made = run_report(ReportSettings(folder=str(folder), **{**usual, **settings}))
    return Path(made["output"]).read_text()


def text_of(page: str) -> str:
    """What a page says, without its drawings and script."""
    page = re.sub(r"<(style|script|svg).*?</\1>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_it_needs_no_network_and_runs_no_text_of_a_user(page):
    assert re.findall(r"""(?:src|href)=["']?https?:""", page.text) == []
    assert "@import" not in page.text and "url(" not in page.text
    assert HOSTILE not in page.text
    assert page.text.count("<script>") == 1
    assert page.text.count("&lt;script&gt;alert(") >= 3  # an id, a reason, a failed cell
    assert page.text.count("<svg") == page.made["figures"] > 50


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


def test_a_library_is_told_with_counts_threshold_and_rejected_rows(tmp_path):
    table = write_library(tmp_path)
    told = text_of(page_of(tmp_path))
    outside = int(np.sum(table["energy"].to_numpy() > THRESHOLD))
    assert (
        f"{outside} of 40 molecules ({100 * outside / 40:.1f} %) are OOD: p ≤ 0.05, energy above "
        "1.000, by 99 ID molecules"
    ) in told
    assert f"library, outside (12 of {outside})" in told and "drawn at random" in told
    assert "ID, training (12 of 40)" in told and "OOD, training (12 of 20)" in told
    assert re.search(r"The axes hold [\d.]+ % and [\d.]+ % of the variance", told)
    assert "Rejected: 2 rows by reason" in told and "SMILES does not parse 1" in told


def test_both_ends_stand_beside_their_nearest_training_molecules(tmp_path):
    table = write_library(tmp_path).to_pandas()
    told = text_of(page_of(tmp_path))
    top = table.loc[table["energy"].idxmax()]
    assert (
        f"Most OOD: highest energies Left a molecule of the library, right the training molecule "
        "nearest to it. No training molecule stands twice in a list; molecules of the training "
        f"set are left out. energy {top['energy']:.3g}, p = {top['p_value']:.2g} {top['id']} "
        f"Tanimoto {top['nearest_similarity']:.2f} {top['nearest_id']}"
    ) in told
    best = table.loc[table["expected_error"].idxmin()]
    assert f"error ≈ {best['expected_error']:.2g} {best['id']}" in told


def test_what_a_library_lacks_is_said(tmp_path):
    write_library(tmp_path, p_value=None, expected_error=None, nearest_smiles=None)
    shutil.rmtree(tmp_path / "rejected")
    shutil.rmtree(tmp_path / "training")
    (tmp_path / "run_summary.json").unlink()
    told = text_of(page_of(tmp_path))
    for lacks in (
        "the scores have no p-values", "there is no error model", "The threshold is not told",
        "the training molecules are not at", "No row was rejected",
    ):  # fmt: skip
        assert lacks in told


def test_scores_of_an_earlier_version_are_read_as_far_as_they_go(tmp_path):
    write_library(tmp_path)
    for part in (tmp_path / "scores").iterdir():
        pq.write_table(pq.read_table(part).select(["id", "smiles", "energy", "is_ood"]), part)
    told = text_of(page_of(tmp_path))
    assert "earlier version, which did not write p_value, structure, in_training" in told


def test_a_sample_is_of_all_parts_and_numbers_are_of_all_rows(tmp_path):
    table = write_library(tmp_path)
    found = read_scored(Folder(str(tmp_path)), 10, seed=1)
    assert found.rows == 40 and found.sample.num_rows == 10
    assert found.numbers["energy"].tolist() == table["energy"].to_pylist()
    ids = found.sample["id"].to_pylist()
    assert ids == sorted(ids, key=lambda name: int(name[3:])) and len(set(ids)) == 10
    assert any(int(i[3:]) < 20 for i in ids) and any(int(i[3:]) >= 20 for i in ids)


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


def test_a_suite_warns_as_the_suite_itself_does(tmp_path):
    cells = suite_cells(failed=False).to_pandas()
    cells["best_descriptor_auroc"] = np.where(cells["data"] == "set_3", 0.59, 0.99)
    cells.loc[cells["data"] == "set_3", "auroc"] = 0.58
    made = write_suite(tmp_path, pa.Table.from_pandas(cells))
    told = text_of(page_of(tmp_path))
    assert len(made["warnings"]) == 9
    for each in made["warnings"]:
        bracket = "(" * (each["data"] == each["test_data"])  # those across data sets are a table
        assert f"{each['warning']} {bracket}{each['methods'][0]}" in told
    assert "set_3: rings alone has AUROC 0.590" in told
    assert "no better than a descriptor that tells next to nothing" in told
    assert "set_0 set_1 rings alone" in told and "All cells are done." in told


def test_a_suite_of_one_data_set_has_no_diagram_and_says_why(tmp_path):
    cells = suite_cells(data=1, failed=False)
    own = cells.filter(pa.compute.equal(cells["data"], cells["test_data"]))
    write_suite(tmp_path, own)
    told = text_of(page_of(tmp_path))
    assert "on two blocks or more; there are 6 on 1." in told
    assert "No cell was tested on another data set" in told and "cross: true" in told


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


def test_of_many_methods_the_best_are_drawn_and_that_is_said(tmp_path):
    rng = np.random.default_rng(0)
    pattern = suite_cells(data=1, failed=False).to_pylist()[0]
    rows = [
        pattern | {"data": f"set_{i}", "test_data": f"set_{i}", "encoder": "e",
                   "detector": f"d{j}", "variant": "", "seed": 1,
                   "auroc": 0.5 + j / 200 + rng.random() / 4} for i in range(3) for j in range(70)
    ]  # fmt: skip
    made = write_suite(tmp_path, pa.Table.from_pylist(rows))
    page = page_of(tmp_path)
    told = text_of(page)
    assert "The best 60 of 70 methods." in told
    assert "The best 24 of 70 methods are drawn." in told
    assert page.count('class="cell"') == 180 and "10 more rows are left out." in told
    assert "e/d69, set_2: " in page and "e/d0, set_2" not in page
    drawn = re.search(r'<svg class="ranks".*?</svg>', page, flags=re.S)[0]
    start, end = map(
        float, re.search(r'class="axis" d="M([\d.]+) [\d.]+H([\d.]+)"', drawn).groups()
    )
    places = [float(x) for x in re.findall(r'class="lead" d="M([\d.]+) ', drawn)]
    ranks = list(made["statistics"]["ranks"]["average_ranks"].values())[:24]
    assert max(ranks) > 24 and len(places) == 24
    assert start <= min(places) and max(places) <= end
    assert np.corrcoef(ranks, places)[0, 1] > 0.999


def test_what_the_suite_found_is_shown_and_nothing_else(tmp_path):
    made = write_suite(tmp_path)
    told = text_of(page_of(tmp_path))
    found = made["statistics"]
    reference = found["reference"]
    for name, each in found["versus_reference"].items():
        rank = found["ranks"]["average_ranks"][name]
        line = (
            f"{name} {rank:.2f} {each['difference']:+.4f} {each['better']} {each['worse']} "
            f"{each['wilcoxon_p']:.3g} {each['holm_p']:.3g}"
        )
        assert line in told
    assert f"AUROC less that of {reference}, block by block" in told
    one = found["versus_reference"]["unimol/knn"]["by_block"]["set_5"]
    low, high = one["ci95"]
    assert f"unimol/knn set_5 {one['difference']:+.4f} [{low:+.4f}, {high:+.4f}] 60" in told
    critical = found["ranks"]["critical_difference"]
    assert f"ranks nearer than {critical:.2f} (Nemenyi, 5 %)" in told
    assert "Something to know." in told
    (tmp_path / "summary.json").unlink()
    assert "there is no summary.json" in text_of(page_of(tmp_path))


def test_a_suite_says_what_no_seed_changes_what_failed_and_what_was_left_out(tmp_path):
    cells = suite_cells().to_pandas()
    once = (cells["detector"] == "knn") & (cells["seed"] == 1)
    cells = cells[once | (cells["detector"] != "knn")]
    cells["any_seed"] = cells["detector"] == "knn"
    cells["peak_resident_memory_train_gb"], cells["encoding_time_seconds"] = 1.25, 7.5
    cells["peak_gpu_memory_train_gb"] = 0.0
    write_suite(tmp_path, pa.Table.from_pandas(cells, preserve_index=False))
    told = text_of(page_of(tmp_path))
    assert re.search(r"set_0 minimol/knn 1 † 0\.\d{3} 0\.\d{3}", told)  # no deviation
    assert re.search(r"set_0 minimol/dpo \(dpo_beta=0.1\) 2 \(1 failed\) 0\.\d{3} ± ", told)
    assert "† fitted once: no seed changes it." in told
    assert re.search(r"set_1 set_0 minimol/knn 1 † 1,234 0\.\d{3}", told)
    assert "training, s scoring, s encoding, s training, GiB" in told
    assert "minimol/knn 1.5 0.2 7.5 1.25" in told


def test_the_best_descriptor_is_named_in_the_suites_table(tmp_path):
    write_suite(tmp_path)
    assert "0.860 (rings) 0.550" in text_of(page_of(tmp_path))
