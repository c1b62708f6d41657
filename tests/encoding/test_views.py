"""--views: names, settings of each encoder, and molecules that one of them rejects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from pipeline.encoding import views as views_module
from pipeline.encoding.settings import EncodeSettings
from pipeline.encoding.views import (
    check_views,
    decided,
    encode_views,
    encoders_of,
    open_views,
    settings_of_view,
    view_names,
)
from pipeline.molecules.features.descriptors import descriptor_values
from pipeline.molecules.features.fingerprints import ecfp4
from pipeline.runtime.errors import InputError
from tests.conftest import encoder_here
from tests.made_sets import moses, write_table


def settings(folder: Path, file: Path, **changes) -> EncodeSettings:
    usual = {"cache_root": str(folder / "store"), "output_dir": str(folder), "device": "cpu"}
    return EncodeSettings(data_file=str(file), **{**usual, **changes})


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("views", "told"),
    [
        ("minimol,maccs", "no view is called 'maccs'; there are: .*minimol.*distances"),
        ("ecfp,minimol,ecfp", "ecfp is named twice"),
        ("distances", "name an encoder beside it"),
        ("", "no view is called ''"),
        ("ecfp,", "no view is called ''"),
        ("ECFP", "no view is called 'ECFP'"),
    ],
)
def test_wrong_names_are_told(views, told):
    with pytest.raises(InputError, match=told):
        view_names(views, "unimol")


def test_names_keep_their_order_and_one_encoder_is_one_view():
    assert view_names(" distances, ecfp ,minimol", "unimol") == ("distances", "ecfp", "minimol")
    assert view_names(None, "minimol") == ("minimol",)
    assert encoders_of(("distances", "ecfp")) == ("ecfp",)


def test_the_heaviest_encoder_has_conformers_and_sizes():
    assert views_module.heaviest(("ecfp", "unimol", "unimol2", "distances")) == "unimol2"
    assert views_module.heaviest(("minimol", "ecfp", "unimol")) == "unimol"
    assert views_module.heaviest(("ecfp", "minimol")) == "minimol"


def test_weights_are_unimols_alone(tmp_path):
    given = settings(tmp_path, tmp_path / "a.csv", weights="mini", finetuned="folder")
    unimol, ecfp = (settings_of_view(given, name) for name in ("unimol", "ecfp"))
    assert (unimol.weights, unimol.finetuned) == ("mini", "folder")
    assert (ecfp.foundation_model, ecfp.weights, ecfp.finetuned) == ("ecfp", None, None)
    assert replace(ecfp, foundation_model="unimol", weights="mini", finetuned="folder") == unimol


def test_structures_that_no_view_takes_are_told(tmp_path):
    file = write_table(tmp_path / "a.csv", smiles=["CCO"])
    with pytest.raises(InputError, match="--structures file"):
        check_views(settings(tmp_path, file, structures="file"), ("ecfp", "descriptors"))


# --- encoding ---------------------------------------------------------------------------------


def test_views_are_those_of_the_encoders_and_what_one_rejects_is_rejected(
    ray_session, tmp_path, monkeypatch
):
    """One view rejects two molecules, of which one has two rows; another view rejects a third."""
    smiles = [*moses()[:12], moses()[2], "nonsense"]
    file = write_table(tmp_path / "a.csv", smiles=smiles, part=["a"] * 12 + ["b"] * 2)
    how = settings(tmp_path, file, split_column=None)
    plans, source = open_views(how, ("ecfp", "descriptors"))
    made = views_module.encode_molecules
    refuse = {"ecfp": [2, 5], "descriptors": [7]}

    def refusing(molecules, source, plan):
        """As it is, but some molecules are refused as an encoder would."""
        name = plan.settings.foundation_model
        found = made(molecules, source, plan)
        bad = [keys[row] for row in refuse[name]]
        mask = pa.array([key in bad for key in found.molecules["key"].to_pylist()])
        gone = found.molecules.filter(mask).select(["id", "smiles"])
        gone = gone.append_column("stage", pa.array(["encode"] * gone.num_rows))
        gone = gone.append_column("reason", pa.array([f"{name} cannot"] * gone.num_rows))
        left = found.molecules.filter(pa.compute.invert(mask))
        return replace(found, molecules=left, rejected=pa.concat_tables([found.rejected, gone]))

    keys = source.molecules["key"].to_pylist()
    monkeypatch.setattr(views_module, "encode_molecules", refusing)
    encoded = encode_views(source.molecules, source, plans)
    rows = len(smiles)
    assert encoded.molecules.num_rows + encoded.rejected.num_rows == rows == source.rows
    reasons = sorted(row["reason"] for row in encoded.rejected.to_pylist())
    repeated = keys.count(keys[2])
    assert reasons.count("ecfp cannot") == 1 + repeated
    assert reasons.count("descriptors cannot") == 1
    left = encoded.molecules["key"].to_pylist()
    assert not {keys[2], keys[5], keys[7]} & set(left)
    blocks = encoded.blocks(left)
    canonical = encoded.molecules["smiles"].to_pylist()
    assert list(blocks) == ["ecfp", "descriptors"]
    np.testing.assert_array_equal(blocks["ecfp"], ecfp4(canonical))
    np.testing.assert_allclose(blocks["descriptors"], descriptor_values(canonical), rtol=1e-6)
    assert encoded.result.identity["encoder"] == "ecfp+descriptors"
    assert set(encoded.result.identity["views"]) == {"ecfp", "descriptors"}
    assert decided(how, plans)[1] == "cpu"


def test_structures_of_a_file_go_to_the_view_that_takes_them(ray_session, tmp_path, small_weights):
    """Beside one that takes none; a record without coordinates is rejected for both."""
    writer = Chem.SDWriter(str(tmp_path / "a.sdf"))
    for seed, smiles in enumerate(moses()[:4]):
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(molecule, randomSeed=seed + 1)
        writer.write(molecule)
    writer.close()
    given = {"structures": "file", "weights": str(small_weights), "precision": "fp32"}
    found = {}
    for order in (("ecfp", "unimol"), ("unimol", "ecfp")):
        how = settings(tmp_path, tmp_path / "a.sdf", **given)
        assert check_views(how, order) is not None
        plans, source = open_views(how, order)
        with encoder_here():
            encoded = encode_views(source.molecules, source, plans)
        assert encoded.molecules.num_rows == 4 and encoded.rejected.num_rows == 0
        assert encoded.molecules["structure"].to_pylist() == ["3d"] * 4
        found[order] = encoded.blocks(encoded.molecules["key"].to_pylist())
    ours, theirs = found.values()
    for view in ("ecfp", "unimol"):
        np.testing.assert_array_equal(ours[view], theirs[view])
    assert ours["unimol"].shape == (4, 64)
