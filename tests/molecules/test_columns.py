"""Names of columns, ids that are given and made, labels, splits."""

from __future__ import annotations

import pytest

from pipeline.molecules.folders import data_files
from pipeline.molecules.formats import check_files, stream_rows
from pipeline.molecules.settings import SourceSettings
from pipeline.runtime.errors import InputError
from tests.molecules.data_files import rows, save


@pytest.mark.parametrize(
    "name", ["smiles", "SMILES", "Smiles", "canonical_smiles", "Canonical SMILES", "Drug",
             "structure", "Isomeric-SMILES"],
)  # fmt: skip
def test_the_smiles_column_by_its_usual_names(tmp_path, name):
    path = save(tmp_path / "d.csv", f"x,{name},y\n1,CCO,2\n")
    assert rows(path)["smiles"].to_pylist() == ["CCO"]
    notes = check_files(SourceSettings(data_file=str(path)))
    assert notes == ([] if name == "smiles" else
                     [f"column {name!r} is read as --smiles_column smiles"])  # fmt: skip


def test_the_column_that_is_named_comes_first_and_case_does_not_matter(tmp_path):
    path = save(tmp_path / "d.csv", "smiles,Other,other\nC,CC,CCC\n")
    assert rows(path)["smiles"].to_pylist() == ["C"]
    assert rows(path, smiles_column="Other")["smiles"].to_pylist() == ["CC"]
    assert rows(path, smiles_column="SMILES")["smiles"].to_pylist() == ["C"]
    with pytest.raises(InputError, match="no column 'OTHER'"):  # which of the two?
        rows(path, smiles_column="OTHER")


@pytest.mark.parametrize(
    "written, read",
    [("train", "train"), ("Train", "train"), ("val", "iid_val"), ("valid", "iid_val"),
     ("validation", "iid_val"), ("test", "iid_test"), ("TEST", "iid_test"),
     ("ood_val", "ood_val"), (" ood_test ", "ood_test"), ("", None)],
)  # fmt: skip
def test_splits_in_the_words_of_others(tmp_path, written, read):
    path = save(tmp_path / "d.csv", f"smiles,part\nC,{written}\n")
    assert rows(path, split_column="part")["split"].to_pylist() == [read]


@pytest.mark.parametrize("sign", ["<", ">", "<=", "≥", "~"])
def test_bounds_are_no_labels(tmp_path, sign):
    path = save(tmp_path / "d.csv", f"smiles,y\nC,5.2\nCC,{sign}10\nCO,{sign} 3\n")
    with pytest.raises(InputError, match=f"2 or more labels .* such as '{sign}10'.*bounds"):
        rows(path, label_column="y")


@pytest.mark.parametrize("value", ["inf", "-Infinity", "1_000", "Active, High", "0x10"])
def test_what_is_no_finite_number_is_no_label(tmp_path, value):
    path = save(tmp_path / "d.csv", f'smiles,y\nC,1\nCC,"{value}"\n')
    with pytest.raises(InputError, match=f"such as '{value}'"):
        rows(path, label_column="y")


def test_two_columns_that_may_both_hold_the_smiles_are_an_error(tmp_path):
    path = save(tmp_path / "d.csv", "Smiles,SMILES\nC,CC\n")
    with pytest.raises(InputError, match="'Smiles' and 'SMILES' may both hold the SMILES"):
        rows(path)
    assert rows(path, smiles_column="SMILES")["smiles"].to_pylist() == ["CC"]


def test_a_smiles_files_header_is_found_by_the_name_asked_in_any_case(tmp_path):
    path = save(tmp_path / "d.smi", "MySmi name\nCCO a\n")
    assert rows(path, smiles_column="mysmi")["id"].to_pylist() == ["a"]


def test_ids_that_are_made_cannot_be_ids_that_are_given(tmp_path):
    def read(text):
        path = save(tmp_path / "d.csv", text)
        settings = SourceSettings(data_file=str(path), id_column="c")
        pieces = stream_rows(data_files(str(path))[0], settings, 2)
        return [row for piece in pieces for row in piece.to_pylist()]

    found = read("smiles,c\nCCO,A\nCCC,1,2\nCCN,\nC,d:2\nCC,d:2#\n")
    assert [row["id"] for row in found] == ["A", "d:1#", "d:2#", "d:2", "d:4#"]
    assert [row["reason"] is None for row in found] == [True, False, True, True, False]
    assert "has the form of those" in found[4]["reason"]
