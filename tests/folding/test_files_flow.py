"""A folder of structure files to sequences: by id, by sequence, and never by guess."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.folding.files.flow import FromFiles, keep_structures, structure_files
from pipeline.folding.files.matching import names_of_id
from pipeline.folding.tables import matrices, opened, structure_features
from pipeline.molecules.sequences import sequence_key
from pipeline.runtime.errors import InputError
from tests.folding.test_structure_files import CRO, atoms_changed

HEN = (
    "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNC"
    "AKKIVSDGNGMNAWVAWRNRCKGTDVQAWIRGCRL"
)  # lysozyme


@pytest.fixture
def store(tmp_path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def written(tmp_path, structure_folder):
    """A function that makes a folder of files: names with texts."""

    def write(**files: str):
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)
        return folder

    return write


def source(files: FromFiles, sequence: str, *ids: str) -> str:
    wanted = pa.table({"key": [sequence_key(sequence)], "smiles": [sequence]})
    (found,) = files.sources(wanted, {sequence_key(sequence): list(ids)})
    return str(found)


def test_all_files_of_a_folder_are_found(structure_folder, store):
    names = structure_files(str(structure_folder))
    assert names == ["1lzh.pdb.gz", "1orc.pdb.gz", "1pfe.cif.gz", "5e5z.pdb.gz", "5i55.cif.gz"]
    index = FromFiles.of(str(structure_folder), store, 1).index
    assert sorted(index.files) == names and index.faults == {}
    assert index.summary() == {
        "read": 5, "unreadable": {}, "other_chains": {"it is no protein chain": 1},
    }  # fmt: skip


def test_a_structure_is_found_by_its_sequence_whatever_the_rows_id(structure_folder, store):
    files = FromFiles.of(str(structure_folder), store, 1)
    assert source(files, CRO, "1ORC") == source(files, CRO, "nothing") == "1orc.pdb.gz:A"
    # What is kept under a sequence's key must not depend on who asks first.
    assert source(files, HEN, "1LZH_B") == source(files, HEN, "x") == "1lzh.pdb.gz:A"


def test_what_is_not_the_rows_sequence_is_no_structure_of_it(structure_folder, store):
    files = FromFiles.of(str(structure_folder), store, 1)
    assert source(files, "GGGG", "x") == "no structure file has it, by its id or its sequence"
    assert source(files, CRO[:-1], "1orc_A") == (
        "the structure of its id has another sequence: 1orc.pdb.gz:A, 71 residues instead of 70"
    )
    assert source(files, CRO[:8] + "W" + CRO[9:], "1orc") == (
        "the structure of its id has another sequence: 1orc.pdb.gz:A, D instead of W at 9"
    )
    assert source(files, "GCGTACGC", "1pfe_A") == (
        "it is no protein chain: Dna: 1pfe.cif.gz, chain A"
    )


def test_the_most_observed_of_equal_chains_counts(written, peptide, store):
    fewer = atoms_changed(peptide, lambda line: None if line[22:26] == "   6" else line)
    files = FromFiles.of(str(written(a__pdb=fewer, b__pdb=peptide, c__pdb=peptide)), store, 1)
    assert source(files, "LVHSSN", "x") == "b.pdb:A"
    assert source(files, "LVHSSN", "A") == "b.pdb:A"


def test_a_file_that_cannot_be_read_is_the_reason_of_its_row(written, peptide, store):
    folder = written(
        **{"AF-P12345-F1-model_v4__cif": "data_x\nloop_\n_a\n_b\n1\n", "b__pdb": peptide}
    )
    files = FromFiles.of(str(folder), store, 1)
    assert files.summary["files"] == {
        "read": 1, "unreadable": {"the file is no mmCIF file": 1}, "other_chains": {},
    }  # fmt: skip
    told = source(files, "ACDE", "sp|P12345|SOME_NAME")
    assert told.startswith("the file is no mmCIF file") and "AF-P12345-F1-model_v4.cif" in told
    assert source(files, "LVHSSN", "x") == "b.pdb:A"


@pytest.mark.parametrize(
    ("row_id", "names"),
    [
        ("P12345", {"p12345"}),
        ("sp|P12345|RNAS1_BOVIN", {"sp|p12345|rnas1_bovin", "p12345", "rnas1_bovin"}),
        ("1ABC_A", {"1abc_a"}),
    ],
)
def test_rows_ids_are_names_of_files(row_id, names):
    assert names_of_id(row_id) == names


def test_structures_are_kept_and_read_again(structure_folder, store):
    files = FromFiles.of(str(structure_folder), store, 1)
    rows = [
        {"key": sequence_key(sequence), "smiles": sequence, "source": source(files, sequence)}
        for sequence in (HEN, CRO)
    ]
    files.table.create()
    outcomes = pa.concat_tables(files.outcomes(pa.Table.from_pylist(rows), "run"))
    assert outcomes["reason"].null_count == 2
    table = opened(files.table.uri)
    cro, nothing, lysozyme = structure_features(
        table, [sequence_key(CRO), sequence_key("GG"), sequence_key(HEN)]
    )
    assert nothing is None
    assert len(cro.values) == 71 and len(lysozyme.values) == 129
    chain = matrices(table.read([sequence_key(CRO)]))[0]
    np.testing.assert_array_equal(np.isfinite(chain), cro.mask)
    np.testing.assert_array_equal(chain[cro.mask], cro.values[cro.mask])
    assert not cro.mask[0].any() and cro.mask[10, :8].all()


def test_relative_folders_are_those_of_where_the_run_began(written, peptide, tmp_path, monkeypatch):
    written(a__pdb=peptide)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    files = FromFiles.of("files", "store", 1)
    row = {"key": sequence_key("LVHSSN"), "smiles": "LVHSSN", "source": "a.pdb:A"}
    files.table.create()
    monkeypatch.chdir(tmp_path / "elsewhere")  # as a worker's
    (outcomes,) = files.outcomes(pa.Table.from_pylist([row]), "run")
    assert outcomes["reason"].to_pylist() == [None]
    assert len(list((tmp_path / "store" / "structures").glob("*/*.parquet"))) == 1


def test_a_file_that_changes_while_it_is_read_is_told(structure_folder, store):
    files = FromFiles.of(str(structure_folder), store, 1)
    row = {"key": "k" * 32, "smiles": "GGGG", "source": "1orc.pdb.gz:A"}
    found = keep_structures(
        pa.Table.from_pylist([row]), str(structure_folder), files.table, "run"
    ).to_pylist()
    assert found[0]["reason"] == "its structure file has changed meanwhile; run again"
    assert files.table.shards() == []


def test_other_files_are_another_table_wherever_they_lie(written, peptide, store, tmp_path):
    folder = written(a__pdb=peptide)
    first = FromFiles.of(str(folder), store, 1).table.key
    folder.rename(tmp_path / "elsewhere")
    assert FromFiles.of(str(tmp_path / "elsewhere"), store, 1).table.key == first
    (tmp_path / "elsewhere" / "a.pdb").write_text(peptide.replace("LEU", "ILE"))
    assert FromFiles.of(str(tmp_path / "elsewhere"), store, 1).table.key != first


def test_a_folder_without_structures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="--structure_folder .*: no file in it ends in .pdb"):
        structure_files(str(tmp_path))
    with pytest.raises(InputError, match="--structure_folder"):
        structure_files(str(tmp_path / "nothing"))


def test_an_unknown_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="no structures of this version"):
        opened(str(tmp_path / "structures" / "abc"))
