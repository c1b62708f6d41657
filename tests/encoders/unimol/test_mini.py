"""MolSieve-Mini: the file that ships, unimol_tools on it, and what it has learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.conformers.rdkit_embedder import embed
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol import weights as module
from pipeline.encoders.unimol.pretraining.masking import MaskRecipe, mask_batch, mask_molecule
from pipeline.encoders.unimol.pretraining.objective import PretrainingUniMol, mean_losses, start
from pipeline.encoders.unimol.published_format import read_weights
from pipeline.encoders.unimol.tokens import tokenize
from pipeline.encoders.unimol.weights import resolve_weights
from pipeline.runtime.errors import InputError
from tests.reference import unimol_tools_features


def test_mini_ships_and_has_the_layers_of_the_published_model():
    weights = resolve_weights("mini")
    config = read_weights(weights).config
    assert weights.label == "mini" and weights.path.stat().st_size < 15e6
    assert (config.layers, config.width // config.heads) == (15, 8)
    card = (weights.path.parent / "README.md").read_text()
    assert weights.sha256 in card


def test_minis_features_equal_those_of_unimol_tools(moses_smiles):
    weights = resolve_weights("mini")
    expected = unimol_tools_features(
        weights.path, moses_smiles[:12], config=read_weights(weights).config
    )
    encoder = load_encoder("unimol", weights="mini", device="cpu", precision="fp32")
    found = encoder.encode_smiles(moses_smiles[:12])
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert error.max() < 1e-5


def test_another_file_in_minis_place_is_refused(small_weights, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MINI_FILE", small_weights)
    with pytest.raises(InputError, match="not the file that belongs to this version"):
        resolve_weights("mini")
    monkeypatch.setattr(module, "MINI_FILE", tmp_path / "absent.pt")
    with pytest.raises(InputError, match="--weights mini: .* is not there"):
        resolve_weights("mini")


def test_mini_tells_hidden_atoms_of_molecules_that_it_never_saw(moses_smiles):
    weights = resolve_weights("mini")
    state = read_weights(weights)
    tensors = torch.load(weights.path, weights_only=True)["model"]
    model = PretrainingUniMol(state.config, state.vocabulary.pad).eval()
    before = start(PretrainingUniMol(state.config, state.vocabulary.pad), seed=0).eval()
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    true = [
        tokenize(made.atoms, made.coords, state.vocabulary)
        for made in (embed(smiles) for smiles in moses_smiles[:60])
    ]
    spoiled = [
        mask_molecule(m, state.vocabulary, MaskRecipe(), np.random.RandomState(i))
        for i, m in enumerate(true)
    ]
    batch = mask_batch(true, spoiled, state.vocabulary.pad)
    with torch.no_grad():
        after, untrained = mean_losses(model(batch)), mean_losses(before(batch))
    assert after["accuracy"] > 0.8
    for name, share in (("token", 0.2), ("coord", 0.4), ("distance", 0.1)):
        assert after[name] < share * untrained[name], name
