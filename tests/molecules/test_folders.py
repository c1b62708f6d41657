"""Folders of files of any format, and what is skipped in them."""

from __future__ import annotations

import bz2
import json

import pytest

from pipeline.molecules.folders import data_files
from pipeline.molecules.formats import check_files
from pipeline.molecules.settings import SourceSettings
from pipeline.runtime.errors import InputError
from tests.molecules.data_files import parquet, rows, save


@pytest.fixture
def library(tmp_path):
    folder = tmp_path / "library"
    for place in (folder, folder / "sub", folder / "sub/deep", folder / ".hidden"):
        place.mkdir()
    save(folder / "a.csv", "smiles\nC\nCC\n")
    save(folder / "b.smi.gz", "CCC\n")
    parquet(folder / "c.parquet", smiles=["CO"])
    (folder / "d.SMI.BZ2").write_bytes(bz2.compress(b"CN\n"))
    save(folder / "e.txt", "CCCl\nCCBr\n")
    save(folder / "sub/f.jsonl", json.dumps({"smiles": "CF"}))
    save(folder / "sub/deep/a.csv", "smiles\nCI\n")
    save(folder / ".hidden/g.smi", "N\n")
    return folder


IDS = ["a.csv:0", "a.csv:1", "b.smi.gz:0", "c.parquet:0", "d.SMI.BZ2:0", "e.txt:0", "e.txt:1",
       "sub/deep/a.csv:0", "sub/f.jsonl:0"]  # fmt: skip


@pytest.mark.parametrize("end", ["", "/"])
def test_a_folder_holds_files_of_any_format_and_folders(library, end):
    found = rows(f"{library}{end}")
    assert found["id"].to_pylist() == [f"library/{name}" for name in IDS]
    smiles = ["C", "CC", "CCC", "CO", "CN", "CCCl", "CCBr", "CI", "CF"]
    assert found["smiles"].to_pylist() == smiles
    assert check_files(SourceSettings(data_file=str(library))) == []


def test_files_of_no_known_format_are_named(library, caplog):
    save(library / "sub/notes.md", "x")
    save(library / "README.txt", "This library is a gift.\nIt was made by us.\n")
    save(library / "LIESMICH.txt", "Gr\xfc\xdfe\nvon uns\n".encode("latin-1"))
    assert rows(library).num_rows == len(IDS)
    [note] = check_files(SourceSettings(data_file=str(library)))
    assert note == "skipped 3 files of no known format: LIESMICH.txt, README.txt, sub/notes.md"
    assert "skipped 3 files" in caplog.text


def test_a_folder_of_which_all_would_be_skipped_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no file in this folder ends in"):
        data_files(str(tmp_path))
    save(tmp_path / "notes.md", "x")
    with pytest.raises(InputError, match="it has notes.md"):
        data_files(str(tmp_path))


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(library):
    save(library / "sub/x.sdf", "x\n")
    with pytest.raises(InputError, match="sub/x.sdf: not an SDF"):
        rows(library)


@pytest.mark.parametrize("content", [b"CCO\n\xff\xfeC", b"\x1f\x8bxxxx", b"\0C\0C\0O\0C\0C\0O"])
def test_a_text_of_a_folder_that_cannot_be_read_is_one_line(library, content):
    (library / "x.txt").write_bytes(content)
    (library / "y.txt.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"[xy]\.txt"):
        rows(library)
