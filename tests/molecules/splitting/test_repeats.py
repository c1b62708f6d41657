"""Molecules with several rows: what is merged, dropped and said of it."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from jobs import cli
from jobs.split import split as split_job
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.repeats import distinct
from tests.molecules.data_files import read, save

ROWS = pa.table(
    {
        "id": [f"r{i}" for i in range(8)],
        "key": ["b", "a", "b", "c", "a", "a", "d", "c"],
        "label": [0.0, None, 1.0, 2.0, 4.0, 4.0, None, 2.0],
        "domain": ["x", "y", "z", "x", "y", "y", "x", "x"],
    }
)


def merged(how: str):
    settings = SplitSettings(data_file="d.csv", output="s.json", duplicates=how)
    return distinct(ROWS, settings)


@pytest.mark.parametrize(
    ("how", "ids", "labels"),
    [
        ("first", ["r0", "r1", "r3", "r6"], [0, 4, 2, None]),
        ("mean", ["r0", "r1", "r3", "r6"], [0.5, 4, 2, None]),
        ("drop", ["r1", "r3", "r6"], [4, 2, None]),
    ],
)
def test_a_molecule_has_one_row_and_the_label_that_was_asked_for(how, ids, labels):
    found = merged(how)
    assert found.molecules["id"].to_pylist() == ids
    assert found.molecules["label"].to_pylist() == labels
    assert (found.several_rows, found.several_labels, found.several_domains) == (3, 1, 1)
    assert (found.dropped_molecules, found.dropped_rows) == ((1, 2) if how == "drop" else (0, 0))
    assert len(ids) + found.repeated + found.dropped_rows == ROWS.num_rows


@pytest.mark.parametrize(
    ("labels", "first", "mean"),
    [
        ([None, 1.0, 1.0], 1, 1),
        ([None, 2.0, 1.0], 2, 1.5),
        ([0.0, None, 1.0], 0, 0.5),
        ([0.1, 0.1, 0.1], 0.1, 0.1),  # NumPy's mean is 0.10000000000000002
        ([None, None, None], None, None),
    ],
)
def test_labels_that_are_missing_lose_none_that_are_there(labels, first, mean):
    rows = pa.table(
        {"key": ["a"] * 3, "label": pa.array(labels, pa.float64()), "domain": ["x"] * 3}
    )
    for how, label in (("first", first), ("mean", mean)):
        settings = SplitSettings(data_file="d.csv", output="s.json", duplicates=how)
        found = distinct(rows, settings)
        assert found.molecules["label"].to_pylist() == [label]


def test_no_rows_are_no_molecules():
    empty = distinct(ROWS.slice(0, 0), SplitSettings(data_file="d.csv", output="s.json"))
    assert empty.molecules.num_rows == empty.repeated == empty.several_rows == 0


def test_a_duplicate_of_a_split_with_another_label_is_rejected_with_that_reason(tmp_path):
    text = "smiles,y,part\nCCO,1,train\nOCC,0,train\nC(O)C,1,train\nCCO,,train\nC,1,train\n"
    source = read(save(tmp_path / "d.csv", text), label_column="y", split_column="part")
    same, other = "duplicate of d:0 in split train", ", with another label"
    assert source.rejected["reason"].to_pylist() == [same + other, same, same]


def run(capsys, tmp_path, *flags: str) -> tuple[int, str, str]:
    """Exit code and output of jobs.split by the column `year` of a small table."""
    rows = [f"{'C' * (i + 1)},{i % 2},{2000 + i}" for i in range(20)]
    rows += ["CC,0,2001", "CCC,1,2003", "N,1,NA", "O,0,", "xx,1,2000", "CCN.Cl,1,2004"]
    path = save(tmp_path / "d.csv", "\n".join(["smiles,y,year", *rows]) + "\n")
    argv = ["--data_file", str(path), "--label_column", "y", "--by", "column", "--column", "year"]
    argv += ["--column_order", "value", "--output", str(tmp_path / "split.json"), *flags]
    code = cli.main(SplitSettings, split_job, "split", argv)
    out, error = capsys.readouterr()
    return code, out, error


def test_what_was_merged_and_left_out_is_told(ray_session, tmp_path, capsys):
    code, out, error = run(capsys, tmp_path)
    assert code == 2 and "missing in 2 of 26 rows ('NA', an empty cell)" in error
    code, out, _ = run(capsys, tmp_path, "--missing_domain", "drop", "--fragments", "largest")
    assert code == 0
    assert "26 in: 2 repeat a molecule, 1 rejected {'SMILES does not parse': 1}" in out
    assert (
        "2 molecules have several rows, 2 of them with different labels: the first is taken" in out
    )
    assert "1 molecules have rows in several domains: the first" in out
    assert "dropped 2 rows without a domain" in out
    assert "1 molecules lost smaller fragments" in out
    assert "order   column 'year', numbers, smallest first" in out
    content = json.loads((tmp_path / "split.json").read_text())["split"]
    items = {item["smiles"]: item["reg_label"] for items in content.values() for item in items}
    assert len(items) == 21 and (items["CC"], items["CCC"], items["CCN"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("how", "told", "label", "molecules"),
    [("mean", "their mean is taken", 0.5, 21), ("drop", "dropped 4 rows of 2 molecules", None, 19)],
)
def test_labels_that_differ(ray_session, tmp_path, capsys, how, told, label, molecules):
    flags = ("--missing_domain", "drop", "--duplicates", how, "--max_molecules", "1000")
    code, out, _ = run(capsys, tmp_path, *flags)
    assert code == 0 and told in out and f"(--duplicates {how})" in out
    content = json.loads((tmp_path / "split.json").read_text())["split"]
    items = {item["smiles"]: item["reg_label"] for items in content.values() for item in items}
    assert items.get("CC") == label and len(items) == molecules


def test_the_splits_of_a_file_do_not_count_in_a_new_one(ray_session, tmp_path, capsys):
    items = [{"smiles": "C" * (i + 1), "cls_label": 0} for i in range(20)]
    old = {"train": [*items, {"smiles": "C", "cls_label": 1}], "ood_test": items[:1]}
    path = save(tmp_path / "d.json", json.dumps({"split": old}))
    argv = ["--data_file", str(path), "--by", "size", "--output", str(tmp_path / "s.json")]
    assert cli.main(SplitSettings, split_job, "split", argv) == 0
    told = capsys.readouterr().out
    assert "22 in: 2 repeat a molecule, 0 rejected" in told
    assert "1 molecules have several rows, 1 of them with different labels" in told
