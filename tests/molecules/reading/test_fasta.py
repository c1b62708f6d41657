"""FASTA as it is found: lines of any length, compressed, damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from pipeline.molecules.reading import fasta
from pipeline.runtime.errors import InputError
from tests.molecules.data_files import rows, save

TEXT = ">sp|P1|ONE first protein OS=x\nMKLV\nACDE\n\n>two\tb\nGG\n"


@pytest.mark.parametrize("name", ["d.fasta", "d.fa", "d.faa", "D.FASTA"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_names_and_lines(tmp_path, name, end):
    found = rows(save(tmp_path / name, TEXT.replace("\n", end)))
    assert found["id"].to_pylist() == ["sp|P1|ONE", "two"]
    assert found["smiles"].to_pylist() == ["MKLVACDE", "GG"]


@pytest.mark.parametrize(
    "end, pack", [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_compressed(tmp_path, end, pack):
    (tmp_path / f"d.fasta.{end}").write_bytes(pack(b"\xef\xbb\xbf\n" + TEXT.encode()))
    assert rows(tmp_path / f"d.fasta.{end}")["smiles"].to_pylist() == ["MKLVACDE", "GG"]


def test_the_description_may_be_the_id(tmp_path):
    found = rows(save(tmp_path / "d.fa", TEXT), id_column="(description)")
    assert found["id"].to_pylist() == ["first protein OS=x", "b"]


@pytest.mark.parametrize("text", ["MKLV\n>a\nMK\n", "; old\n>a\nMK\n", "sequence,y\nMK,1\n"])
def test_what_does_not_begin_with_a_header_is_no_fasta(tmp_path, text):
    with pytest.raises(InputError, match="not FASTA: its first line does not begin with '>'"):
        rows(save(tmp_path / "d.fa", text))


def test_an_empty_file_has_no_rows(tmp_path):
    with pytest.raises(InputError, match="has no rows"):
        rows(save(tmp_path / "d.fa", "\n"))


def test_a_record_longer_than_any_protein_is_one_rejected_row(tmp_path, monkeypatch):
    monkeypatch.setattr(fasta, "LONGEST_RECORD", 20)
    found = rows(save(tmp_path / "d.fa", ">chr1\n" + 9 * "ACGTA\n" + ">a\nMKLV\n"))
    assert found["smiles"].to_pylist() == ["chr1", "MKLV"]
    assert found["reason"].to_pylist() == ["FASTA record of more than 20 characters", None]


def test_nucleotides_are_told(tmp_path):
    path = save(tmp_path / "d.fa", ">a\n" + 20 * "ACGT" + "\n>b\nacgun\n")
    [note] = fasta.open_fasta(str(path)).notes
    assert "they look like nucleotides" in note
    assert fasta.open_fasta(str(save(path, TEXT))).notes == []
