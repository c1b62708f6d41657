"""The page of a scored library."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.report.reading import Folder
from pipeline.report.scored import read_scored
from tests.report.made_folders import (
    THRESHOLD,
    write_json,
    write_library,
)
from tests.report.pages import page_of, text_of


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
        "the training molecules are not at",
        "Rejected rows are not told: there is no folder rejected.",
    ):  # fmt: skip
        assert lacks in told


def test_training_molecules_of_a_library_are_left_out_throughout_and_counted(tmp_path):
    known = np.arange(40) % 4 == 0
    table = write_library(tmp_path, in_training=known)
    page = page_of(tmp_path, map_molecules=40)
    told, new = text_of(page), table.filter(pa.array(~known)).to_pandas()
    outside = int((new["energy"] > THRESHOLD).sum())
    assert f"{outside} of 30 molecules that are not in the training set" in told
    assert "10 molecules of the training set are left out of all counts" in told
    assert "Scored 40" in told and "In the training set 10" in told
    assert told.count(f"outside ({outside})") == 4 and "library (30)" in told  # charts, map
    assert "of all 30 molecules" in told  # scaffolds


@pytest.mark.parametrize("kept", [0, 40])
def test_a_library_of_which_nothing_new_was_scored_tells_why(tmp_path, kept):
    write_library(tmp_path, in_training=[True] * 40)
    for part in (tmp_path / "scores").iterdir():
        pq.write_table(pq.read_table(part).slice(0, kept), part)
    told = text_of(page_of(tmp_path))
    expected = "0 of 42 rows could be scored." if not kept else (
        "All 40 molecules that were scored are in the training set."
    )  # fmt: skip
    assert expected in told and "nan" not in told
    assert "Rejected: 2 rows by reason" in told


def test_rejected_rows_that_were_counted_but_are_not_there_are_told(tmp_path):
    write_library(tmp_path)
    shutil.rmtree(tmp_path / "rejected")
    assert "there is no folder rejected. The run counted 2." in text_of(page_of(tmp_path))
    summary = json.loads((tmp_path / "run_summary.json").read_text())
    write_json(tmp_path / "run_summary.json", summary | {"rejected": 0})
    assert "No row was rejected." in text_of(page_of(tmp_path))


def test_a_threshold_that_nothing_can_pass_is_told(tmp_path):
    write_library(tmp_path)
    summary = json.loads((tmp_path / "run_summary.json").read_text())
    changed = {"energy_threshold": float("inf"), "calibration_molecules": 9}
    write_json(tmp_path / "run_summary.json", summary | changed)
    told = text_of(page_of(tmp_path))
    assert "With 9 molecules that calibrate, no p-value can be 0.05 or less" in told
    assert "above inf" not in told


def test_of_two_detectors_p_values_are_compared_and_not_energies(tmp_path):
    write_library(tmp_path, p_value=np.linspace(1, 0.001, 40))
    write_json(tmp_path / "training/checkpoint/config.json", {"cross": True})
    told = text_of(page_of(tmp_path))
    assert "energies on a scale of its own: compare p-values, not energies" in told
    assert "are OOD: p ≤ 0.05, by 99 ID molecules" in told
    assert "threshold at p = 0.05 of molecules that training did not use" in told
    assert re.search(r"Least OOD: highest p-values .*? p = 1 mol0 ", told)
    assert re.search(
        r"Most OOD: lowest p-values \(equal ones by id\) energy \S+ p = 0.001 mol39 ", told
    )
    assert "highest energies" not in told


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
