"""Rows to molecules: parsed, identified, or rejected with a reason; none is lost."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rdkit import Chem

from pipeline.molecules.features.fingerprints import packed_ecfp4
from pipeline.molecules.identity import canonicalize, molecule_key
from pipeline.molecules.parsers import SmilesParser
from pipeline.molecules.reading.raw_rows import RAW, raw_rows
from pipeline.molecules.rejected import with_ids
from pipeline.molecules.sources import FINGERPRINT, parse_block
from pipeline.runtime.errors import InputError, RowRejected
from tests.molecules.data_files import DRUGOOD, SMILES, read, rows, save
from tests.molecules.test_identity import UNSTABLE, WRITTEN


def test_malformed_csv_rows_are_rejected_and_the_others_keep_their_numbers(ray_session, tmp_path):
    path = save(tmp_path / "d.csv", "smiles,y\nC,1\nCC,2,3\nCCC,3\nCCCC\nCO,5\n")
    source = read(path, label_column="y")
    assert source.molecules["id"].to_pylist() == ["d:0", "d:2", "d:4"]
    assert source.molecules["smiles"].to_pylist() == ["C", "CCC", "CO"]
    assert source.molecules["label"].to_pylist() == [1, 3, 5]
    assert source.rejected.to_pylist() == [
        {"id": "d:1", "smiles": "CC,2,3", "stage": "read"}
        | {"reason": "row has 3 columns, expected 2"},
        {"id": "d:3", "smiles": "CCCC", "stage": "read"}
        | {"reason": "row has 1 columns, expected 2"},
    ]


def test_rows_that_are_no_molecules_are_rejected_with_a_reason(ray_session, tmp_path):
    source = read(save(tmp_path / "d.smi", "OCC\nnonsense\n\nC1CC\nCN(C)(C)(C)C\nc1ccccc1\n"))
    assert source.molecules["id"].to_pylist() == ["d:0", "d:5"]
    assert source.molecules["smiles"].to_pylist() == ["CCO", "c1ccccc1"]
    assert source.rejected["id"].to_pylist() == ["d:1", "d:2", "d:3", "d:4"]
    unparsed = "SMILES does not parse"
    assert source.rejected["reason"].to_pylist() == [unparsed, "empty SMILES", unparsed, unparsed]
    assert set(source.rejected["stage"].to_pylist()) == {"parse"}


def test_a_molecule_without_atoms_is_rejected(monkeypatch):
    monkeypatch.setattr(Chem, "MolFromSmiles", lambda text: Chem.Mol())
    with pytest.raises(RowRejected, match="no atoms"):
        canonicalize("C")


def test_duplicates_within_a_split_are_rejected_and_across_splits_are_kept(ray_session, tmp_path):
    text = "smiles,part\nOCC,train\nCCO,train\nCCO,ood_val\nC(O)C,ood_val\nC,train\n"
    source = read(save(tmp_path / "d.csv", text), split_column="part")
    assert source.molecules["id"].to_pylist() == ["d:0", "d:2", "d:4"]
    assert source.rejected["id"].to_pylist() == ["d:1", "d:3"]
    assert source.rejected["stage"].to_pylist() == ["duplicate", "duplicate"]
    assert source.rejected["reason"].to_pylist() == [
        "duplicate of d:0 in split train",
        "duplicate of d:2 in split ood_val",
    ]
    assert source.rows == 5


def test_without_splits_a_repeated_molecule_keeps_every_row(ray_session, tmp_path):
    source = read(save(tmp_path / "d.smi", "OCC\nC\nCCO\n"))
    assert source.molecules.num_rows == 3 and source.rejected.num_rows == 0


def test_molecules_carry_split_label_and_domain_in_input_order(ray_session, tmp_path):
    source = read(save(tmp_path / "d.json", json.dumps(DRUGOOD)))
    written = rows(tmp_path / "d.json").select(["split", "label", "domain"])
    assert source.molecules.select(["split", "label", "domain"]).equals(written)
    assert source.molecules["key"].to_pylist() == [
        molecule_key(smiles) for smiles in source.molecules["smiles"].to_pylist()
    ]


GOOD_LINES = [f"{smiles},train" for smiles in [*SMILES, "CCO", "C", "N"]]
GOOD = st.sampled_from(GOOD_LINES)
BAD = st.sampled_from([",ood_val", "C1CC,train", "xx,ood_val", "C,train,9", "C", "'O,train"])


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=st.lists(st.one_of(GOOD, BAD), min_size=1, max_size=40))
def test_every_row_is_a_molecule_or_rejected(ray_session, tmp_path, lines):
    path = save(tmp_path / "d.csv", "\n".join(["smiles,part", *lines]) + "\n")
    if not any(line in GOOD_LINES for line in lines):
        with pytest.raises(InputError, match=f"none of {len(lines)} rows is a molecule"):
            read(path, split_column="part")
        return
    source = read(path, split_column="part")
    ids = source.molecules["id"].to_pylist() + source.rejected["id"].to_pylist()
    assert sorted(ids) == sorted(f"d:{i}" for i in range(len(lines)))
    assert all(source.rejected["reason"].to_pylist()) and all(source.rejected["stage"].to_pylist())
    for row in source.molecules.to_pylist():
        written = lines[int(row["id"].split(":")[1])].split(",")[0]
        assert row["smiles"] == canonicalize(written)


def test_rows_beyond_one_block_keep_their_order(ray_session, tmp_path):
    written = ["C" * (1 + i % 7) if i % 11 else "xx" for i in range(4500)]
    source = read(save(tmp_path / "d.smi", "\n".join(written)))
    numbers = [int(name.split(":")[1]) for name in source.molecules["id"].to_pylist()]
    assert numbers == [i for i in range(4500) if i % 11]
    assert source.molecules["smiles"].to_pylist() == [written[i] for i in numbers]
    assert source.rows == 4500


def test_only_the_largest_fragments_are_kept_if_asked(tmp_path):
    path = save(tmp_path / "d.smi", "CCN.Cl\nCCO\nxx\nCCN\nC.Cl\n")
    kept, largest = read(path), read(path, fragments="largest")
    assert kept.molecules["smiles"].to_pylist() == ["CCN.Cl", "CCO", "CCN", "C.Cl"]
    assert kept.fragments_removed == 0
    assert largest.molecules["smiles"].to_pylist() == ["CCN", "CCO", "CCN", "C"]
    assert largest.fragments_removed == 2 and largest.rows == 5
    keys = largest.molecules["key"].to_pylist()
    assert keys[0] == keys[2] == molecule_key("CCN")
    assert largest.rejected["smiles"].to_pylist() == ["xx"]


def test_a_rejected_molecule_is_reported_for_each_of_its_rows():
    molecules = pa.table({"id": ["a", "b", "c"], "key": ["1", "2", "1"], "smiles": ["C", "N", "C"]})
    rejected = pa.table({"key": ["1"], "smiles": ["C"], "stage": ["encode"], "reason": ["why"]})
    assert with_ids(rejected, molecules).to_pylist() == [
        {"id": name, "smiles": "C", "stage": "encode", "reason": "why"} for name in ("a", "c")
    ]


@pytest.mark.parametrize("fragments", ["keep", "largest"])
def test_fingerprints_are_those_of_the_canonical_smiles(fragments):
    odd = ["CCN.Cl", "xx", "[CH3:1]C", "CC |^1:0|", "[Na+].[O-]c1ccccc1", r"F/C=C\F", *UNSTABLE]
    written = [*odd, *WRITTEN[:80]]
    raw = raw_rows({"id": written, "smiles": written}, len(written), RAW)
    parsed = parse_block(raw, SmilesParser(fragments), fingerprints=True)
    assert parsed.drop_columns([FINGERPRINT]).equals(parse_block(raw, SmilesParser(fragments)))
    good = parsed.filter(parsed["reason"].is_null())
    assert parsed[FINGERPRINT].null_count == parsed.num_rows - good.num_rows == 1
    bits = np.frombuffer(b"".join(good[FINGERPRINT].to_pylist()), np.uint8)
    expected = packed_ecfp4(good["smiles"].to_pylist())
    np.testing.assert_array_equal(bits.reshape(expected.shape), expected)
