"""The page of a suite shows what the suite found."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from tests.report.made_folders import suite_cells, write_json, write_suite
from tests.report.pages import page_of, text_of


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


def test_audits_and_trials_that_failed_are_told(tmp_path):
    made = write_suite(tmp_path)
    audit = {"data": "set_0", "test_data": "set_1", "reason": "ValueError: no such descriptor"}
    trial = {"data": "set_0", "encoder": "unimol", "detector": "dpo", "reason": "no room"}
    more = {"failed_audits": [audit], "failed_trials": [trial, trial]}
    write_json(tmp_path / "summary.json", made | more)
    told = text_of(page_of(tmp_path))
    assert "not scored for set_0 tested on set_1: ValueError: no such descriptor." in told
    assert "searches that failed: 2; the first, dpo on unimol of set_0: no room." in told
