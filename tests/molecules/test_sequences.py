"""Proteins and peptides: what a sequence may be, and sources of them."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
from rdkit import Chem

from pipeline.molecules import folders
from pipeline.molecules.formats import check_files
from pipeline.molecules.identity import molecule_key
from pipeline.molecules.kinds import SEQUENCE, SMILES
from pipeline.molecules.parsers import SequenceParser, parser_of
from pipeline.molecules.rejected import kind_of, write_rejected
from pipeline.molecules.sequences import EXTRA, STANDARD, canonical_sequence, sequence_key
from pipeline.molecules.settings import SourceSettings
from pipeline.runtime.errors import InputError, RowRejected
from tests.molecules.data_files import parquet, read, read_molecules, rows, save

FASTA = ">a first one\nGLFDI\nIKKIAE\n>b\nmk l\n>c\nMKL*\n>d\n\n>a\nMKVX\n>\nACD-F\n>e\nA\n"


@pytest.mark.parametrize(
    "written", ["MKLV", "mklv", " MKLV ", "MK LV", "MKLV*", "MK\tL\nV *", "\ufeffMKLV", "mKLV*\r\n"]
)
def test_the_writings_of_a_sequence_are_one(written):
    assert canonical_sequence(written) == "MKLV"


@pytest.mark.parametrize(
    "written, kind, shown",
    [
        (None, "empty sequence", ""),
        ("  ", "empty sequence", ""),
        ("*", "empty sequence", ""),
        ("MK-LV", "sequence has gaps, as in an alignment; leave them out", "'-' at 3"),
        ("MKLV.", "sequence has gaps, as in an alignment; leave them out", "'.' at 5"),
        ("MK*LV", "sequence has a stop before its end", "'*' at 3"),
        ("MKLV**", "sequence has a stop before its end", "'*' at 5"),
        ("mkxlv", "sequence has a letter of XUBZO, which --residues extended takes", "'X' at 3"),
        ("MKJ", "sequence has a letter that stands for no residue", "'J' at 3"),
        ("MK1", "sequence has a letter that stands for no residue", "'1' at 3"),
        ("mkß", "sequence has a letter that stands for no residue", "'ß' at 3"),
        ("MK\ufffd", "sequence has bytes that are no UTF-8 text", "'\ufffd' at 3"),
        ("M", "sequence is too short", "1 (--min_length 2)"),
        ("M" * 1023, "sequence is too long", "1,023 (--max_length 1022)"),
    ],
)
def test_what_is_no_sequence_is_rejected_with_the_place(written, kind, shown):
    with pytest.raises(RowRejected) as caught:
        canonical_sequence(written)
    assert kind_of(str(caught.value)) == kind and str(caught.value).endswith(shown)


def test_letters_and_lengths_are_those_that_settings_allow():
    assert canonical_sequence(STANDARD) == STANDARD
    assert canonical_sequence(STANDARD + EXTRA, residues="extended") == STANDARD + EXTRA
    assert canonical_sequence("MKLVM", min_length=5, max_length=5) == "MKLVM"
    for text in ("MKLV", "MKLVMK"):
        with pytest.raises(RowRejected):
            canonical_sequence(text, min_length=5, max_length=5)
    with pytest.raises(RowRejected, match="stands for no residue: 'J'"):
        canonical_sequence("MKJ", residues="extended")
    with pytest.raises(InputError, match="--min_length 9 is above --max_length 3"):
        SourceSettings(data_file="d.fasta", min_length=9, max_length=3)


def test_a_sequences_key_is_no_smiles_key():
    both = [text for text in ("CCC", "CC", "NCCN", "FCCF", "PCP") if Chem.MolFromSmiles(text)]
    assert len(both) == 5
    for text in both:
        assert len(sequence_key(text)) == 32 and sequence_key(text) != molecule_key(text)
    assert sequence_key("CCC") == sequence_key(canonical_sequence("cc c*")) != sequence_key("CC")


def test_a_fasta_files_records_are_rows_sequences_and_reasons(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = read(save(tmp_path / "d.fasta", FASTA))
    assert source.kind is SEQUENCE and source.rows == 7
    assert source.molecules.select(["id", "smiles"]).to_pylist() == [
        {"id": "a", "smiles": "GLFDIIKKIAE"},
        {"id": "b", "smiles": "MKL"},
        {"id": "c", "smiles": "MKL"},
    ]
    assert source.molecules["key"].to_pylist()[1] == sequence_key("MKL")
    assert [(r["id"], r["smiles"], kind_of(r["reason"])) for r in source.rejected.to_pylist()] == [
        ("d", None, "empty sequence"),
        ("a#2", "MKVX", "sequence has a letter of XUBZO, which --residues extended takes"),
        ("d:5#", "ACD-F", "sequence has gaps, as in an alignment; leave them out"),
        ("e", "A", "sequence is too short"),
    ]
    assert source.tidied == {"blanks": 1, "lower case": 1, "final stop": 1}
    for told in ("3 sequences, 4 rejected", "(1), final stop (1), lower", "1 names of molecules"):
        assert told in caplog.text


def test_rows_of_users_files_name_the_text_as_its_kind(tmp_path):
    source = read(save(tmp_path / "d.fasta", FASTA))
    write_rejected(source.rejected, str(tmp_path), kind=source.kind)
    assert pq.read_table(tmp_path / "rejected.parquet").column_names == [
        "id", "sequence", "stage", "reason"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.parquet", "d.jsonl", "d.txt"])
def test_tables_of_sequences(tmp_path, name):
    table = {"name": ["p", "q", "r"], "Seq": ["MKLV", "CCC", "mklv"], "y": [1, 0, 1]}
    if name.endswith("parquet"):
        path = parquet(tmp_path / name, **table)
    elif name.endswith("jsonl"):
        path = save(tmp_path / name, "".join(
            f'{{"name": "{n}", "Seq": "{s}", "y": {y}}}\n' for n, s, y in zip(*table.values())
        ))  # fmt: skip
    else:
        gap = "\t" if name.endswith("tsv") else ","
        path = save(tmp_path / name, "\n".join(
            gap.join(map(str, row)) for row in [list(table), *zip(*table.values())]
        ))  # fmt: skip
    how = {"sequence_column": "seq", "id_column": "name", "label_column": "y"}
    source = read(path, **how)
    assert source.molecules["smiles"].to_pylist() == ["MKLV", "CCC", "MKLV"]
    assert source.molecules["id"].to_pylist() == ["p", "q", "r"]
    assert source.molecules["label"].to_pylist() == [1, 0, 1]
    notes = check_files(SourceSettings(data_file=str(path), **how))
    assert "column 'Seq' is read as --sequence_column seq" in notes
    with pytest.raises(InputError, match="has no column 'absent'.* Set --sequence_column"):
        rows(path, sequence_column="absent")


def test_a_list_of_sequences_and_a_table_without_a_header(tmp_path):
    one = save(tmp_path / "d.txt", "sequence\nMKLV\nMK LV\n")
    found = read(one, sequence_column="sequence")
    assert found.molecules["smiles"].to_pylist() == ["MKLV", "MKLV"]
    plain = save(tmp_path / "plain.csv", "a,CCC\nb,MKLV\n")
    found = read(plain, sequence_column="column_2", id_column="column_1")
    assert found.molecules["smiles"].to_pylist() == ["CCC", "MKLV"]
    assert found.molecules["id"].to_pylist() == ["a", "b"]


def test_a_second_row_of_a_sequence_in_a_split_is_a_duplicate(tmp_path):
    text = "sequence,part\nMKLV,train\nmklv*,train\nMKLV,ood_val\nACDE,train\n"
    path = save(tmp_path / "d.csv", text)
    source = read(path, sequence_column="sequence", split_column="part")
    assert source.molecules["id"].to_pylist() == ["d:0", "d:2", "d:3"]
    assert source.rejected["reason"].to_pylist() == ["duplicate of d:0 in split train"]


def test_a_run_takes_one_kind(tmp_path):
    fasta, table = save(tmp_path / "a.fa", ">a\nMKLV\n"), "sequence,y\nMKLV,1\n"
    text = save(tmp_path / "README.txt", "These peptides are a gift.\nThey were made by us.\n")
    for name in (fasta, tmp_path):
        assert parser_of(SourceSettings(data_file=str(name))) == SequenceParser()
    text.unlink()
    save(tmp_path / "b.csv", table)
    with pytest.raises(InputError, match=r"a\.fa\) and SMILES .*b\.csv\).*--sequence_column"):
        check_files(SourceSettings(data_file=str(tmp_path)))
    both = SourceSettings(data_file=str(tmp_path), sequence_column="sequence")
    assert check_files(both) == []
    assert read(tmp_path, sequence_column="sequence").molecules.num_rows == 2
    smi = save(tmp_path / "c.smi", "CCO\n")
    with pytest.raises(InputError, match=r"SMILES .*c\.smi\) in one folder"):
        check_files(both)
    assert parser_of(SourceSettings(data_file=str(smi))).kind is SMILES


@pytest.mark.parametrize(
    "name, flags, told",
    [
        ("d.fasta", {"sequence_column": "x"}, "--sequence_column cannot apply: a FASTA file"),
        ("d.smi", {"sequence_column": "x"}, "--sequence_column cannot apply: .* SMILES"),
        ("d.csv", {"sequence_column": "x", "smiles_column": "y"}, "a run takes one kind"),
        ("d.fasta", {"fragments": "largest"}, "--fragments largest: sequences are one chain"),
        ("d.fasta", {"structures": "file"}, "--structures file: it is for an SDF"),
        ("d.fasta", {"smiles_column": "y"}, "--smiles_column y: these are sequences; leave it out"),
        ("d.smi", {"residues": "extended"}, "--residues extended: it is for sequences; leave it"),
        ("d.csv", {"smiles_column": "y", "min_length": 3}, "--min_length 3: it is for sequences"),
        ("d.csv", {"smiles_column": "y", "max_length": 9}, "--max_length 9: it is for sequences"),
        ("d.fasta", {"label_column": "y"}, r"no column 'y'; it has \(name\).*Set --label_column"),
    ],
)
def test_flags_that_cannot_apply_are_one_line(tmp_path, name, flags, told):
    path = save(tmp_path / name, ">a\nMKLV\n" if name.endswith("fasta") else "x,y\nMKLV,CCO\n")
    with pytest.raises(InputError, match=told):
        check_files(SourceSettings(data_file=str(path), **flags))


def test_sequences_where_smiles_should_be_name_the_flag_that_mends_it(tmp_path):
    path = save(tmp_path / "d.csv", "smiles\nGLFDIIKKIAESFQW\nMKLVAAWQRSTDE\n")
    with pytest.raises(InputError, match="looks like a sequence .*--sequence_column"):
        read(path)
    wrong = save(tmp_path / "e.csv", "sequence,n\nX1,MKLV\nX2,ACDE\n")
    with pytest.raises(InputError, match="none of 2 rows is a sequence.* does --sequence_column"):
        read(wrong, sequence_column="sequence")


def test_sequences_have_no_coordinates():
    with pytest.raises(InputError, match="sequences have no coordinates"):
        SequenceParser().parse("MKLV", np.zeros(12))


@pytest.mark.parametrize(
    "drug", ["Paracetamol", "Caffeine", "PARACETAMOL", "lisdexamfetaminemesilat"]
)
def test_names_of_drugs_are_no_sequences(tmp_path, drug):
    path = save(tmp_path / "d.csv", f"smiles\n{drug}\n")
    with pytest.raises(InputError, match="Does --smiles_column name the column"):
        read(path)


@pytest.mark.parametrize(
    "text, told",
    [
        ("AUGGCUUACGGAUUCGGA", "Are these nucleotides. Translate them"),
        ("augGCT" * 200, "Are these nucleotides"),
        ("MKXLV", "--residues extended, --min_length and --max_length set"),
        ("MK-LV1", "Are these amino acids in one-letter codes"),
    ],
)
def test_the_likely_cause_is_one_of_sequences(tmp_path, text, told):
    path = save(tmp_path / "d.fasta", f">a\n{text}\n")
    with pytest.raises(InputError, match=f"none of 1 rows is a sequence.*{told}"):
        read(path)


def test_a_text_whose_header_has_the_column_is_a_table_of_sequences(tmp_path):
    save(tmp_path / "a.txt", "name\tSequence\na\tMKLV\n")
    save(tmp_path / "b.txt", "sequence\nACDE\n")
    save(tmp_path / "README.txt", "The sequence of each peptide.\nThey were made by us.\n")
    given = SourceSettings(data_file=str(tmp_path), sequence_column="sequence")
    assert "skipped 1 files of no known format: README.txt" in check_files(given)
    assert read_molecules(given).molecules["smiles"].to_pylist() == ["MKLV", "ACDE"]


def test_a_folder_is_looked_into_once_a_run(tmp_path, monkeypatch):
    save(tmp_path / "a.fa", ">a\nMKLV\n")
    given, looks = SourceSettings(data_file=str(tmp_path)), []
    look = folders._shown
    monkeypatch.setattr(folders, "_shown", lambda *at: looks.append(at) or look(*at))
    check_files(given)
    before = len(looks)
    assert parser_of(given).kind is parser_of(given).kind is SEQUENCE and len(looks) == before
    (tmp_path / "a.fa").rename(tmp_path / "a.smi")
    save(tmp_path / "a.smi", "CCO\n")
    check_files(given)  # another run
    assert parser_of(given).kind is SMILES
