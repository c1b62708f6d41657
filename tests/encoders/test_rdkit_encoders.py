"""Fingerprints and descriptors as encoders, against RDKit's own functions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import AllChem, Crippen, Descriptors, rdMolDescriptors

from pipeline.encoders import Encoder, encoder_class, load_encoder
from pipeline.molecules.features.descriptors import DESCRIPTORS
from pipeline.runtime.errors import InputError, RowRejected
from tests.commands import REPOSITORY

BOTH = pytest.mark.parametrize("name, dim", [("ecfp", 2048), ("descriptors", 13)])
ODD = ["C", "[H][H]", "*", "[Na+].[Cl-]", "[2H]C([2H])[2H]"]


def test_fingerprints_are_rdkits(hiv_smiles):
    smiles = [*hiv_smiles[:50], *ODD]
    features = load_encoder("ecfp").encode_smiles(smiles)
    assert features.shape == (55, 2048) and features.dtype == np.float32
    for row, text in zip(features, smiles):
        expected = np.zeros(0, np.int8)
        bits = AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(text), 2, nBits=2048)
        DataStructs.ConvertToNumpyArray(bits, expected)
        np.testing.assert_array_equal(row, expected)


def test_descriptors_are_rdkits(hiv_smiles):
    smiles = [*hiv_smiles[:50], *ODD]
    features = load_encoder("descriptors").encode_smiles(smiles)
    assert features.shape == (55, 13) and features.dtype == np.float32
    mols = [Chem.MolFromSmiles(text) for text in smiles]
    plain = {
        "molecular weight": Descriptors.MolWt, "logP": Crippen.MolLogP,
        "TPSA": rdMolDescriptors.CalcTPSA, "heavy atoms": lambda mol: mol.GetNumHeavyAtoms(),
        "formal charge": Chem.GetFormalCharge,
    }  # fmt: skip
    for name, describe in plain.items():
        column = features[:, list(DESCRIPTORS).index(name)]
        np.testing.assert_allclose(column, [describe(mol) for mol in mols], rtol=1e-6, err_msg=name)


@BOTH
def test_they_fit_the_protocol(name, dim):
    encoder = load_encoder(name, device="cuda", weights=None, encoding_batch_size=7)
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim, encoder.needs_conformers) == (name, dim, False)
    assert not encoder.uses_torch and encoder_class("unimol").uses_torch
    assert encoder.encode_smiles([]).shape == (0, dim)
    assert encoder.take_token_counts() == (0, 0)


@BOTH
def test_their_identity_names_the_recipe_and_rdkits_version(name, dim):
    identity = encoder_class(name).identity(weights="ignored", precision="bf16", finetuned=None)
    assert identity == encoder_class(name).identity()
    assert (identity["encoder"], identity["rdkit"]) == (name, rdBase.rdkitVersion)
    assert identity["weights"] == f"rdkit {rdBase.rdkitVersion}" and identity["code_version"] == 1
    if name == "ecfp":
        assert (identity["radius"], identity["bits"]) == (2, 2048)
    else:
        assert identity["descriptors"] == list(DESCRIPTORS)


@BOTH
def test_they_cannot_be_finetuned(name, dim):
    for ask in (encoder_class(name).identity, encoder_class(name)):
        with pytest.raises(InputError, match=f"--finetuned: {name} cannot be finetuned"):
            ask(finetuned="checkpoint")


@BOTH
def test_what_rdkit_cannot_parse_is_rejected(name, dim):
    with pytest.raises(RowRejected, match="cannot parse"):
        load_encoder(name).prepare({"smiles": "C1CC"})


def test_a_descriptor_that_is_not_finite_or_fails_is_named(monkeypatch):
    encoder = load_encoder("descriptors")
    monkeypatch.setitem(DESCRIPTORS, "TPSA", lambda mol: float("nan"))
    with pytest.raises(RowRejected, match="TPSA is not finite: nan"):
        encoder.prepare({"smiles": "CCO"})

    def fails(mol):
        raise RuntimeError("no parameters\nfor it")

    monkeypatch.setitem(DESCRIPTORS, "logP", fails)
    monkeypatch.setitem(DESCRIPTORS, "TPSA", lambda mol: 0.0)
    with pytest.raises(RowRejected, match="^RDKit cannot compute logP: no parameters$"):
        encoder.prepare({"smiles": "CCO"})


@BOTH
def test_a_worker_that_loads_one_does_not_import_torch(name, dim):
    code = f"""
import sys
from types import SimpleNamespace
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding.plan import EncoderPool
from pipeline.encoding.steps import pooled_encoder

plan = SimpleNamespace(settings=EncoderSettings(foundation_model={name!r}), weights=None)
encoder = pooled_encoder(plan, EncoderPool(1, "cpu", 0, 0, 128))
print(encoder.encode_smiles(["CCO"]).shape, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"(1, {dim}) False"
