"""Uni-Mol's features equal those of unmodified unimol_tools, in any batch and precision."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem

from pipeline.conformers import on_all_cores, rdkit_embedder
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.batching import Budget
from pipeline.encoders.unimol.model import GaussianFeatures, UniMolConfig
from pipeline.encoders.unimol.tokens import TOKEN_ORDERS, Vocabulary, tokenize
from tests.commands import REPOSITORY
from tests.reference import unimol_tools_features, write_checkpoints, write_dictionary

WHOLE = Budget(molecules=1000, tokens=10**9, pairs=10**9, enough_tokens=10**9)


def relative_errors(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    difference = np.linalg.norm(features - reference, axis=1)
    return difference / np.linalg.norm(reference, axis=1)


def encoder_of(weights: Path, **settings):
    settings = {"precision": "fp32", **settings}
    return load_encoder("unimol", weights=str(weights), device="cpu", **settings)


def with_symbols(conformers) -> list[tuple[list[str], np.ndarray]]:
    table = Chem.GetPeriodicTable()
    return [([table.GetElementSymbol(int(n)) for n in c.atoms], c.coords) for c in conformers]


@pytest.fixture(scope="module", autouse=True)
def embed():
    """Each molecule is embedded once here: embedding takes longer than encoding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rdkit_embedder, "embed", lru_cache(None)(rdkit_embedder.embed))
        patch.setattr(on_all_cores, "children_for", lambda seconds: 1)
        yield rdkit_embedder.embed


@pytest.fixture(scope="module")
def molecules(hiv_smiles, moses_smiles) -> list[str]:
    """81 molecules; methane first, which is one heavy atom."""
    return ["C", *hiv_smiles[:60], *moses_smiles[:20]]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def reference(checkpoints, molecules) -> np.ndarray:
    return unimol_tools_features(checkpoints["unimol_tools"], molecules, batch_size=8)


@pytest.fixture(scope="module")
def conformers(embed, molecules) -> list:
    """Those of methane and 20 molecules, of which one has 115 atoms."""
    return [embed(s, hydrogens=False) for s in molecules[:21]]


@pytest.fixture(scope="module")
def features(checkpoints, molecules) -> np.ndarray:
    """fp32 features of what `conformers` holds."""
    return encoder_of(checkpoints["official"]).encode_smiles(molecules[:21])


@pytest.mark.parametrize("token_order", ["official", "unimol_tools"])
def test_features_equal_those_of_unimol_tools(checkpoints, reference, molecules, token_order):
    ours = encoder_of(checkpoints[token_order]).encode_smiles(molecules)
    assert ours.shape == (81, 512) and ours.dtype == np.float32
    assert relative_errors(ours, reference).max() < 1e-5


def test_the_compared_molecules_span_the_sizes_and_differ(reference, molecules):
    sizes = [Chem.MolFromSmiles(s).GetNumHeavyAtoms() for s in molecules]
    assert min(sizes) == 1 and max(sizes) > 100 and len(set(sizes)) > 25
    neighbours = relative_errors(reference[1:], reference[:-1])
    assert np.median(neighbours) > 0.05  # else 1e-5 would not tell one molecule from another


def test_all_hydrogen_weights_equal_unimol_tools_with_hydrogens(checkpoints, molecules):
    folder = checkpoints["unimol_tools"].parent / "hydrogens"
    folder.mkdir()
    write_dictionary(folder)
    weights = folder / "mol_pre_all_h_220816.pt"
    shutil.copy(checkpoints["unimol_tools"], weights)
    some = [s for s in molecules if len(s) < 50][:30]
    theirs = unimol_tools_features(weights, some, remove_hs=False, batch_size=8)
    encoder = encoder_of(weights)
    assert encoder.weights.keeps_hydrogens
    assert relative_errors(encoder.encode_smiles(some), theirs).max() < 1e-5
    without = encoder_of(checkpoints["unimol_tools"]).encode_smiles(some)
    assert np.median(relative_errors(without, theirs)) > 0.1


def test_conformers_with_symbols_equal_smiles(checkpoints, conformers, features):
    ours = encoder_of(checkpoints["official"]).encode_conformers(with_symbols(conformers))
    np.testing.assert_array_equal(ours, features)


@pytest.mark.parametrize(
    "settings",
    [
        {"encoding_batch_size": 1},
        {"encoding_batch_size": 3},
        {"budget": Budget(molecules=100, tokens=1, pairs=1, enough_tokens=1)},
        {"budget": WHOLE},  # one batch, in which methane is padded to 117 tokens
    ],
    ids=str,
)
def test_features_do_not_depend_on_batch_settings(checkpoints, conformers, features, settings):
    ours = encoder_of(checkpoints["official"], **settings).encode_conformers(
        (c.atoms, c.coords) for c in conformers
    )
    assert relative_errors(ours, features).max() < 1e-5


def test_features_do_not_depend_on_order_or_mates(checkpoints, conformers, features):
    encoder = encoder_of(checkpoints["official"], budget=replace(WHOLE, pairs=60_000))
    pairs = [(c.atoms, c.coords) for c in conformers]
    for rows in (np.random.RandomState(0).permutation(21), np.arange(20, -1, -1), np.arange(7)):
        ours = encoder.encode_conformers([pairs[i] for i in rows])
        assert relative_errors(ours, features[rows]).max() < 1e-5
    for row in (0, 10, 20):
        assert relative_errors(encoder.encode_conformers([pairs[row]]), features[[row]])[0] < 1e-5


@pytest.mark.parametrize("precision, limit", [("bf16", 1e-2), ("fp16", 2e-3)])
def test_half_precision_stays_close_to_unimol_tools(
    checkpoints, molecules, reference, precision, limit
):
    ours = encoder_of(checkpoints["official"], precision=precision).encode_smiles(molecules[:40])
    errors = relative_errors(ours, reference[:40])
    assert errors.max() < limit
    assert errors.max() > 1e-5  # else the setting would have had no effect
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(reference[:40], axis=1)
    assert ((ours * reference[:40]).sum(axis=1) / norms).min() > 0.9999


def test_gaussians_of_almost_no_width_equal_those_of_unimol_tools():
    from unimol_tools.models.unimol import GaussianLayer

    ours, theirs = GaussianFeatures(UniMolConfig()), GaussianLayer(128, 31**2)
    with torch.no_grad():  # widths of 0 show the floor under them
        theirs.stds.weight[0, ::3] = 0.0
        theirs.stds.weight[0, 1::3] *= -1
        theirs.means.weight[0, ::6] = 1.5
        ours.load_state_dict(theirs.state_dict())
        distance, edge_type = torch.full((1, 2, 2), 1.5), torch.zeros(1, 2, 2, dtype=torch.long)
        made, expected = ours(distance, edge_type), theirs(distance, edge_type)
    assert expected.max() > 1e4
    torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-6)


def test_no_molecules_give_no_features(small_weights):
    assert encoder_of(small_weights).encode_conformers([]).shape == (0, 64)


@pytest.fixture(scope="module")
def large_molecule() -> tuple[list[str], np.ndarray]:
    """300 heavy atoms, some outside the dictionary, among 60 hydrogens."""
    random = np.random.RandomState(3)
    symbols = random.permutation(["C"] * 200 + ["N"] * 50 + ["Pt", "Cl", "O", "*", "D"] * 10)
    symbols = np.insert(symbols, random.randint(0, 300, 60), "H")
    return list(symbols), random.normal(0, 8, (360, 3)).astype(np.float32)


@pytest.mark.parametrize("keep_hydrogens", [False, True])
def test_cropping_equals_seeded_unimol_tools(tmp_path, large_molecule, keep_hydrogens):
    from unimol_tools.data.conformer import coords2unimol
    from unimol_tools.data.dictionary import Dictionary

    dictionary = Dictionary.load(str(write_dictionary(tmp_path)))
    dictionary.add_symbol("[MASK]", is_special=True)
    state = np.random.get_state()
    np.random.seed(42)
    theirs = coords2unimol(*large_molecule, dictionary, remove_hs=not keep_hydrogens)
    np.random.set_state(state)
    ours = tokenize(
        *large_molecule,
        Vocabulary(TOKEN_ORDERS["unimol_tools"]),
        keep_hydrogens=keep_hydrogens,
    )
    assert len(ours.tokens) == 258
    np.testing.assert_array_equal(ours.tokens, theirs["src_tokens"])
    np.testing.assert_allclose(ours.coords, theirs["src_coord"], rtol=0, atol=1e-6)


def test_cropping_is_the_same_every_time(small_weights, large_molecule):
    encoder = encoder_of(small_weights)
    first = encoder.encode_conformers([large_molecule])
    np.random.rand(17)
    np.testing.assert_array_equal(encoder.encode_conformers([large_molecule]), first)
    whole = encoder_of(small_weights, max_atoms=300).encode_conformers([large_molecule])
    assert relative_errors(whole, first)[0] > 1e-4


def test_a_molecule_of_256_heavy_atoms_is_not_cropped():
    coords = np.arange(900, dtype=np.float32).reshape(300, 3)
    ours = tokenize(["C"] * 256 + ["H"] * 44, coords, Vocabulary())
    np.testing.assert_array_equal(ours.coords[1:-1], coords[:256] - coords[:256].mean(axis=0))


def test_encoding_conformers_imports_neither_ray_nor_rdkit(small_weights):
    code = (
        "import sys\n"
        "from pipeline.encoders.unimol import UniMolEncoder\n"
        "encoder = UniMolEncoder(weights=sys.argv[1], device='cpu')\n"
        "shape = encoder.encode_conformers([(['C', 'O'], [[0, 0, 0], [1.4, 0, 0]])]).shape\n"
        "print(shape, sorted({'ray', 'rdkit', 'pyarrow', 'safetensors'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_weights)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "(1, 64) []", done.stderr
