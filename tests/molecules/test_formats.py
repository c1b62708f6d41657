"""Data files to molecules: every format, every way a file or a row can be wrong."""

from __future__ import annotations

import gzip
import json
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.molecules.folders import data_files
from pipeline.molecules.formats import stream_rows
from pipeline.molecules.reading import content
from pipeline.molecules.reading.raw_rows import SPLITS
from pipeline.molecules.settings import SourceSettings
from pipeline.runtime.errors import InputError
from tests.molecules.data_files import CSV, DRUGOOD, SMILES, parquet, read, rows, save


@pytest.mark.parametrize("name", ["d.json", "d.json.gz"])
def test_drugood_json_brings_splits_labels_and_domains(tmp_path, name):
    table = rows(save(tmp_path / name, json.dumps(DRUGOOD)))
    assert table["split"].to_pylist() == list(SPLITS)
    assert table["smiles"].to_pylist() == ["C", "CC", "CCC", "CO", "CN"]
    assert table["label"].to_pylist() == [0, 1, 0, 1, 0]
    assert table["domain"].to_pylist() == ["10", "11", "12", "13", "14"]
    assert table["id"].to_pylist() == [f"d:{split}:0" for split in SPLITS]


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz"])
def test_csv_columns_are_carried_by_the_names_given(tmp_path, name):
    path = save(tmp_path / name, CSV)
    table = rows(path, label_column="y", domain_column="group")
    assert table["smiles"].to_pylist() == SMILES
    assert table["label"].to_pylist() == [1, 0, 1]
    assert table["domain"].to_pylist() == ["a", "b", "b"]
    assert table["id"].to_pylist() == ["d:0", "d:1", "d:2"]
    assert rows(path)["label"].to_pylist() == [None] * 3


@pytest.mark.parametrize("name", ["d.smi", "d.smi.gz"])
def test_smi_takes_the_first_word_of_each_line(tmp_path, name):
    table = rows(save(tmp_path / name, "OCC ethanol of wine\nc1ccccc1\tbenzene\r\nCC(=O)O\n"))
    assert table["smiles"].to_pylist() == SMILES


def test_parquet_file_and_folder_read_alike(tmp_path):
    columns = {"s": SMILES, "code": [7, 8, 9], "y": [1.5, None, -2.0]}
    single = parquet(tmp_path / "one.parquet", **columns)
    folder = tmp_path / "many"
    folder.mkdir()
    parquet(folder / "a.parquet", **{name: values[:2] for name, values in columns.items()})
    parquet(folder / "b.parquet", **{name: values[2:] for name, values in columns.items()})
    for path in (single, folder, f"{folder}/"):
        table = rows(path, smiles_column="s", id_column="code", label_column="y")
        assert table["smiles"].to_pylist() == SMILES
        assert table["id"].to_pylist() == ["7", "8", "9"]
        assert table["label"].to_pylist() == [1.5, None, -2.0]


def test_fsspec_uri_reads_like_the_path(tmp_path):
    path = save(tmp_path / "d.csv.gz", CSV)
    assert rows(f"file://{path}").equals(rows(path))


def test_split_column_of_a_table(tmp_path):
    path = save(tmp_path / "d.csv", "smiles,part\nC,train\nCC,ood_test\n")
    assert rows(path, split_column="part")["split"].to_pylist() == ["train", "ood_test"]


def test_ids_and_domains_that_look_like_numbers_stay_as_written(tmp_path):
    path = save(tmp_path / "d.csv", "smiles,code,group\nN,007,01\nO,7,1\n")
    table = rows(path, id_column="code", domain_column="group")
    assert table["id"].to_pylist() == ["007", "7"]
    assert table["domain"].to_pylist() == ["01", "1"]


@pytest.mark.parametrize("flag", ["smiles", "id", "label", "domain", "split"])
def test_a_missing_column_names_what_is_there_and_the_flag(tmp_path, flag):
    path = save(tmp_path / "d.csv", CSV)
    with pytest.raises(InputError) as error:
        rows(path, **{f"{flag}_column": "absent"})
    message = str(error.value)
    assert "'absent'" in message and "smiles, y, group" in message
    assert f"--{flag}_column" in message


def test_drugood_json_without_the_smiles_key_names_the_flag(tmp_path):
    path = save(tmp_path / "d.json", json.dumps(DRUGOOD))
    with pytest.raises(InputError, match="--smiles_column"):
        rows(path, smiles_column="absent")


BAD_FILES = {
    "unknown suffix": ("d.xyz", "C", "unknown format"),
    "empty CSV": ("d.csv", "", "empty"),
    "empty JSON": ("d.json", "", "not valid JSON"),
    "empty Parquet": ("d.parquet", "", "cannot be read"),
    "invalid JSON": ("d.json", '{"split": {', "not valid JSON"),
    "JSON without splits": ("d.json", '{"train": []}', "no 'split' object"),
    "JSON split of strings": ("d.json", '{"split": {"train": ["C"]}}', "not a list of objects"),
    "JSON with an unknown split": ("d.json", '{"split": {"dev": [{"smiles": "C"}]}}', "'dev'"),
    "not Parquet": ("d.parquet", "smiles\nC\n" * 10, "cannot be read"),
    "two columns of one name": ("d.csv", "smiles,smiles\nC,CC\n", "'smiles'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_an_input_error_that_names_it(tmp_path, case):
    name, content, told = BAD_FILES[case]
    path = save(tmp_path / name, content)
    with pytest.raises(InputError, match=told) as error:
        rows(path)
    assert str(path) in str(error.value)


BAD_COLUMNS = {
    "unknown split": ("split", "train,holdout", "'holdout'.*ood_val"),
    "repeated id": ("id", "x,x", "1 ids repeat, the first: x"),
    "empty id": ("id", "x,", "1 empty ids"),
    "label of text": ("label", "1,active", "'column'"),
    "label of dates": ("label", "2020-01-01,2020-01-02", "'column'"),
}


@pytest.mark.parametrize("case", BAD_COLUMNS)
def test_a_bad_value_in_a_column_is_an_input_error(tmp_path, case):
    role, values, told = BAD_COLUMNS[case]
    first, second = values.split(",")
    path = save(tmp_path / "d.csv", f"smiles,column\nC,{first}\nCC,{second}\n")
    with pytest.raises(InputError, match=told):
        rows(path, **{f"{role}_column": "column"})


@pytest.mark.parametrize("uri", ["absent.csv", "absent/d.json", "file:///absent.smi", "no://x.csv"])
def test_a_missing_file_is_an_input_error(uri):
    with pytest.raises(InputError, match="no such file|not known"):
        rows(uri)


def test_a_folder_in_place_of_a_file_is_an_input_error(tmp_path):
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError):
        rows(tmp_path / "d.csv")


@pytest.mark.parametrize("name", ["d.csv.gz", "d.smi.gz", "d.json.gz"])
@pytest.mark.parametrize("damage", ["not gzip", "cut short", "bytes changed"])
def test_broken_gzip_is_an_input_error(tmp_path, name, damage):
    whole = gzip.compress(Random(0).randbytes(4000).hex().encode())
    content = {
        "not gzip": b"smiles\nC\n",
        "cut short": whole[:-20],
        "bytes changed": whole[:500] + bytes(byte ^ 0xFF for byte in whole[500:600]) + whole[600:],
    }[damage]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        rows(path)


@pytest.mark.parametrize(
    "name, content",
    [("d.csv", "smiles\n"), ("d.csv", "smiles,y\n"), ("d.smi", ""), ("d.json", '{"split": {}}')],
)
def test_a_file_without_rows_is_an_input_error(tmp_path, name, content):
    with pytest.raises(InputError, match="no rows"):
        read(save(tmp_path / name, content))


def test_types_of_later_rows_may_differ_from_those_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "PIECE_ROWS", 7)
    lines = [f"C,{i},{i}" for i in range(50)] + ["C,0.5,text", "C,,", "C,True,1", "C,nan,1"]
    found = rows(save(tmp_path / "d.csv", "\n".join(["smiles,y,z", *lines])), label_column="y")
    assert found["label"].to_pylist() == [*range(50), 0.5, None, 1, None]


def test_smiles_that_are_not_utf8_cost_their_row_alone(ray_session, tmp_path):
    source = read(save(tmp_path / "d.csv", b"smiles,y\nC,1\n\xff\xfe,2\nCC,3\n"))
    assert source.molecules["id"].to_pylist() == ["d:0", "d:2"]
    assert source.rejected["id"].to_pylist() == ["d:1"]
    with pytest.raises(InputError, match="not UTF-8"):
        rows(save(tmp_path / "ids.csv", b"smiles,code\nC,\xff\xfe\n"), id_column="code")


@pytest.mark.parametrize("most", [1, 7, 100, 10**6])
def test_pieces_of_a_file_are_its_rows_with_their_numbers(tmp_path, monkeypatch, most):
    """Blocks of a few lines each, so that pyarrow reads malformed rows ahead."""
    monkeypatch.setattr(content, "PIECE_ROWS", 9)
    malformed = {3, 10, 11, 57, 119}
    lines = [f"{'C' * (i + 1)},{i}" + ",x" * (i in malformed) for i in range(120)]
    smiles = ["C" * (i + 1) for i in range(120)]
    table = pa.table({"smiles": smiles})
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=50)
    for path in (
        save(tmp_path / "d.csv", "\n".join(["smiles,y", *lines])),
        save(tmp_path / "d.smi", "\n".join(smiles)),
        tmp_path / "d.parquet",
    ):
        settings = SourceSettings(data_file=str(path))
        [file] = data_files(str(path))
        pieces = list(stream_rows(file, settings, most))
        assert all(piece.num_rows == most for piece in pieces[:-1])
        found = pa.concat_tables(pieces).to_pylist()
        assert sorted(row["id"] for row in found) == sorted(f"d:{i}" for i in range(120))
        for row in found:
            number = int(row["id"].removeprefix("d:"))
            assert row["smiles"] == (lines[number] if row["reason"] else smiles[number])


def test_a_folder_holds_files_of_any_format(tmp_path):
    folder = tmp_path / "library"
    folder.mkdir()
    save(folder / "a.csv", "smiles\nC\nCC\n")
    save(folder / "b.smi.gz", "CCC\n")
    parquet(folder / "c.parquet", smiles=["CO"])
    save(folder / "notes.txt", "no molecules")
    found = rows(folder)
    assert found["smiles"].to_pylist() == ["C", "CC", "CCC", "CO"]
    ids = ["library/a.csv:0", "library/a.csv:1", "library/b.smi.gz:0", "library/c.parquet:0"]
    assert found["id"].to_pylist() == ids
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file in this folder ends in"):
        rows(tmp_path / "empty")
