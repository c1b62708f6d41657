"""Proteins and peptides in the flow: features in the store, residues beside them, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.encode import encode
from pipeline.encoders import load_encoder
from pipeline.encoding.cost.expected_work import expected_seconds
from pipeline.encoding.in_store.residue_table import DTYPES, residue_features, residue_table
from pipeline.encoding.in_store.tables import TO_ENCODE, Tables
from pipeline.encoding.plan import EncoderPool, EncodingPlan, _bytes, check_inputs, plan_encoding
from pipeline.encoding.run import run_encoding
from pipeline.encoding.settings import EncodeSettings
from pipeline.encoding.steps import TOO_LARGE, EncodeBatch
from pipeline.encoding.views import check_views, settings_of_view
from pipeline.molecules.sequences import sequence_key
from pipeline.runtime.errors import InputError
from pipeline.store.keyed_table import KeyedTable
from tests.commands import assert_one_line
from tests.conftest import DATA

MORE = {"gap": "MK-LV", "same": "M" * 40, "empty": "", "again": "GIGAVLKVLTTGLPALISWIKRKRQQ"}


def settings(folder: Path, file: Path, weights: Path | str, **changes) -> EncodeSettings:
    usual = {
        "cache_root": str(folder / "store"), "output_dir": str(folder / "out"), "device": "cpu",
        "foundation_model": "esm", "precision": "fp32", "encoder_workers": 1,
        "weights": str(weights),
    }  # fmt: skip
    return EncodeSettings(data_file=str(file), **usual | changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sequences")


@pytest.fixture(scope="module")
def library(home, peptides) -> Path:
    """The 60 peptides, and four rows more."""
    path = home / "library.fasta"
    text = (DATA / "peptides.fasta").read_text()
    path.write_text(text + "".join(f">{name}\n{text}\n" for name, text in MORE.items()))
    return path


@pytest.fixture(scope="module")
def first(home, library, esm_folder, ray_session, encoder_in_process) -> dict:
    """The summary of a run that also keeps residues, in float32."""
    changes = {"max_length": 60, "min_length": 5, "residue_features": "float32"}
    return run_encoding(settings(home, library, esm_folder, **changes))


def test_every_row_has_its_feature_or_a_reason(first, home, peptides, esm_folder):
    molecules = pq.read_table(home / "out/molecules.parquet")
    rejected = pq.read_table(home / "out/rejected.parquet").to_pylist()
    assert (first["rows_in"], first["molecules_out"], first["kind"]) == (64, 62, "sequence")
    assert [(row["id"], row["sequence"]) for row in rejected] == [("gap", "MK-LV"), ("empty", None)]
    assert set(rejected[0]) == {"id", "sequence", "stage", "reason"}
    assert "smiles" not in molecules.column_names
    assert molecules["id"].to_pylist()[:60] == list(peptides)
    assert molecules["sequence"].to_pylist()[:60] == list(peptides.values())
    table = KeyedTable(str(home / "store"), "features", first["encoder_identity"])
    assert table.uri == first["features"]
    encoder = load_encoder("esm", weights=str(esm_folder), device="cpu", precision="fp32")
    keys = [sequence_key(one) for one in peptides.values()]
    assert keys == molecules["key"].to_pylist()[:60]
    expected = encoder.encode_sequences(list(peptides.values()))
    np.testing.assert_allclose(table.read_features(keys), expected, atol=1e-5)


def test_residues_are_read_as_the_encoder_makes_them(first, home, library, peptides, esm_folder):
    sequences = list(peptides.values())[::-3]
    encoder = load_encoder("esm", weights=str(esm_folder), device="cpu", precision="fp32")
    table = Tables.of(settings(home, library, esm_folder)).with_residues("float32").residues
    assert table.uri == first["residues"]
    found = residue_features(table, [sequence_key(one) for one in sequences])
    for sequence, mine, right in zip(sequences, found, encoder.encode_residues(sequences)):
        assert mine.shape == (len(sequence), encoder.dim) and mine.dtype == np.float32
        np.testing.assert_allclose(mine, right, atol=1e-5)


def test_the_store_has_them_the_next_time_and_residues_can_come_later(
    first, home, library, esm_folder
):
    changes = {"max_length": 60, "min_length": 5}
    again = run_encoding(settings(home, library, esm_folder, **changes))
    assert (again["encoded"], again["found_in_store"], again["residues"]) == (0, 62, None)
    before = sorted(home.glob("store/features/*/*.parquet"))
    later = run_encoding(settings(home, library, esm_folder, residue_features="float16", **changes))
    assert (later["encoded"], later["features"]) == (62, first["features"])
    assert sorted(home.glob("store/features/*/*.parquet")) == before  # they were there
    halves = pq.read_table(next(Path(later["residues"]).glob("*.parquet")))
    assert halves["features"].type.value_type == pa.float16()


def test_other_weights_have_other_features(first, home, library):
    other = run_encoding(settings(home, library, "untrained", max_length=60, min_length=5))
    assert other["encoded"] == 62 and other["features"] != first["features"]


def test_a_table_has_the_features_of_the_fasta_file(first, home, peptides, esm_folder, caplog):
    path = home / "table.csv"
    rows = "".join(f"{name},{text.lower()}*\n" for name, text in peptides.items())
    path.write_text("name,peptide\n" + rows)
    changes = {"sequence_column": "peptide", "id_column": "name", "output_dir": str(home / "t")}
    summary = run_encoding(settings(home, path, esm_folder, **changes))
    assert (summary["encoded"], summary["found_in_store"]) == (0, 60)
    assert summary["tidied"] == {"lower case": 60, "final stop": 60}


@pytest.mark.parametrize("precision", DTYPES)
def test_residues_survive_the_store(tmp_path, precision):
    random = np.random.default_rng(0)
    made = [random.normal(size=(n, 5)).astype(np.float32) for n in (3, 1, 7, 2)]
    keys = [f"{n:032x}" for n in range(4)]
    table = KeyedTable(str(tmp_path), "residues", {}, dense=True)
    for part in (slice(0, 3), slice(3, 4)):
        table.write(residue_table(keys[part], made[part], precision), "run")
    order = [2, 3, 0, 1]
    found = residue_features(table, [keys[i] for i in order])
    for mine, i in zip(found, order):
        np.testing.assert_array_equal(mine, made[i].astype(DTYPES[precision]))
    assert residue_features(table, []) == []


def test_residues_that_float16_cannot_hold_reject_their_row_but_not_for_good(
    tmp_path, library, esm_folder
):
    texts = ["MKLV", "ACDEF"]
    keys = [sequence_key(text) for text in texts]
    rows = [{"key": key, "smiles": text} for key, text in zip(keys, texts)]
    given = settings(tmp_path, library, esm_folder)
    plan = EncodingPlan(given, "cpu", given.weights, Tables.of(given))
    for precision, reasons in {"float16": [None, TOO_LARGE], "float32": [None, None]}.items():
        mine = plan.with_residues(precision)
        step = EncodeBatch(mine, "run", EncoderPool(1, "cpu", 0, 0, 8))
        as_made = step.encoder.encode_with_residues

        def larger(prepared, as_made=as_made):
            features, residues = as_made(prepared)
            residues[1][2, 0] = 70_000  # above float16's largest, 65,504
            return features, residues

        step.encoder.encode_with_residues = larger
        outcome, features = step.encode(pa.Table.from_pylist(rows, schema=TO_ENCODE))
        assert outcome["reason"].to_pylist() == reasons
        made = [key for key, reason in zip(keys, reasons) if reason is None]
        assert features["key"].to_pylist() == made
        every = np.array(keys, dtype="S32")
        for table in mine.tables.made_by_encoder:
            assert (table.index().find(every) >= 0).tolist() == [each is None for each in reasons]
        assert (mine.tables.feature_rejections.index().find(every) < 0).all()


def test_long_sequences_are_expected_to_take_more_than_their_share(home, library, esm_folder):
    tables = Tables.of(settings(home, library, esm_folder))
    made = pa.table({"key": ["1", "2", "3"], "smiles": ["M" * n for n in (50, 100, 1000)]})
    short, double, long = expected_seconds(made, tables)
    assert 2 < double / short < 2.2 and 25 < long / short < 40


@pytest.mark.parametrize(
    "name, text, changes, told",
    [
        ("a.fasta", ">a\nMKLV\n", {"foundation_model": "unimol", "weights": "untrained"},
         "a.fasta holds sequences, and unimol takes SMILES; take --foundation_model esm"),
        ("a.fasta", ">a\nMKLV\n", {"foundation_model": "ecfp"}, "ecfp takes SMILES"),
        ("a.smi", "CCO\n", {}, "a.smi holds SMILES, and esm takes sequences: .*--sequence_column"),
        ("a.fasta", ">a\nMKLV\n", {"structures": "file"}, "--structures file"),
        ("a.fasta", ">a\nMKLV\n", {"fragments": "largest"}, "--fragments largest"),
        ("a.fasta", ">a\nMKLV\n", {"weights": "absent"}, "--weights absent: no such folder"),
        ("a.smi", "CCO\n", {"foundation_model": "unimol2", "model_size": "8m"},
         "Uni-Mol2 was published in"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_at_the_door(tmp_path, name, text, changes, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=told):
        check_inputs(settings(tmp_path, tmp_path / name, **{"weights": "untrained", **changes}))


def test_views_are_of_one_kind(tmp_path):
    (tmp_path / "a.fasta").write_text(">a\nMKLV\n")
    given = settings(tmp_path, tmp_path / "a.fasta", "untrained")
    assert check_views(given, ("esm", "distances")) == []
    assert settings_of_view(given, "esm").weights == "untrained"
    with pytest.raises(InputError, match="a.fasta holds sequences, and ecfp .*; leave ecfp out"):
        check_views(given, ("esm", "ecfp"))


def test_residues_of_smiles_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.smi").write_text("CCO\n")
    argv = ["--data_file", "a.smi", "--foundation_model", "ecfp", "--residue_features", "float16"]
    code = cli.main(EncodeSettings, encode, "encode", argv)
    told = "--residue_features: ecfp takes no sequences"
    assert_one_line(code, capsys.readouterr().err, "encode", told)


def test_the_summary_is_json_and_the_plan_finds_the_model_everywhere(
    first, home, library, esm_folder, monkeypatch
):
    assert json.loads((home / "out/run_summary.json").read_text())["kind"] == "sequence"
    monkeypatch.chdir(esm_folder.parent)
    plan = plan_encoding(settings(home, library, esm_folder.name))
    assert plan.weights == str(esm_folder)
    assert _bytes(esm_folder) == (esm_folder / "model.safetensors").stat().st_size
