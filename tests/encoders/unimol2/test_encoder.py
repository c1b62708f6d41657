"""Uni-Mol2's features equal those of unmodified unimol_tools, whatever else is in the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from pipeline.conformers.rdkit_embedder import embed
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol2.graph import graph_of, join
from pipeline.encoders.unimol2.library import library
from pipeline.runtime.errors import RowRejected
from tests.commands import REPOSITORY
from tests.encoders.unimol2.conftest import theirs


@pytest.fixture(scope="module")
def molecules(hiv_smiles) -> list[str]:
    """Methane, a salt, isotopes, stereo bonds, and others, some of one size."""
    return ["C", "[Na+].CC(=O)[O-]", "[2H]C([2H])Br", "C/C=C\\[C@@H](N)B(O)O",
            *sorted(hiv_smiles, key=len)[20:32]]  # fmt: skip


@pytest.fixture(scope="module")
def reference(checkpoint, molecules) -> np.ndarray:
    return theirs(checkpoint, molecules)


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return load_encoder("unimol2", weights=str(checkpoint), device="cpu", precision="fp32")


def relative_errors(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    difference = np.linalg.norm(features - reference, axis=1)
    return difference / np.linalg.norm(reference, axis=1)


def test_features_equal_those_of_unimol_tools(encoder, molecules, reference):
    ours = encoder.encode_smiles(molecules)
    assert ours.shape == (16, 48) and ours.dtype == np.float32
    assert relative_errors(ours, reference).max() < 1e-5
    # else 1e-5 would not tell one molecule from another
    assert np.median(relative_errors(reference[1:], reference[:-1])) > 0.01


def test_features_do_not_depend_on_mates(encoder, molecules, reference, checkpoint):
    prepared = [
        encoder.prepare({"smiles": s, "atoms": c.atoms, "coords": c.coords.ravel()})
        for s, c in zip(molecules, map(embed, molecules))
    ]
    assert relative_errors(encoder.encode_prepared(prepared[::-1]), reference[::-1]).max() < 1e-5
    encoder.take_token_counts()
    assert relative_errors(encoder.encode_prepared(prepared[:3]), reference[:3]).max() < 1e-5
    assert encoder.take_token_counts() == (2 + 6 + 3, 0)
    assert encoder.encode_prepared([]).shape == (0, 48)
    # which is not so in unimol_tools, where methane is padded to its mates' size
    assert relative_errors(theirs(checkpoint, molecules[:4], batch_size=4), reference[:4])[0] > 1e-3


@pytest.mark.parametrize("precision, limit", [("bf16", 2e-2), ("fp16", 4e-3)])
def test_half_precision_stays_close(checkpoint, molecules, reference, precision, limit):
    encoder = load_encoder("unimol2", weights=str(checkpoint), device="cpu", precision=precision)
    errors = relative_errors(encoder.encode_smiles(molecules), reference)
    assert 1e-5 < errors.max() < limit


def test_a_batch_that_does_not_fit_is_halved(encoder, molecules, reference, monkeypatch, caplog):
    run = encoder._run

    def tight(graphs):
        if len(graphs) > 1:
            raise RuntimeError("CUDA out of memory")
        return run(graphs)

    monkeypatch.setattr(encoder, "budget", replace(encoder.budget))
    monkeypatch.setattr(encoder, "_run", tight)
    twice = [molecules[5], molecules[5]]
    ours = encoder.encode_smiles(twice)
    assert relative_errors(ours, reference[[5, 5]]).max() < 1e-5
    assert "ran out of memory" in caplog.text


@pytest.mark.parametrize("max_atoms", [256, 9])
def test_graphs_equal_those_of_unimol_tools(molecules, max_atoms):
    conformer = library("data.conformer")
    for smiles in [*molecules, "c1ccccc1.C1CCCCC1.[K+]", "N#CC=C=CC(F)(F)S(=O)(=O)O"]:
        molecule = AllChem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(molecule, randomSeed=42)
        made = AllChem.RemoveAllHs(molecule)
        state = np.random.get_state()
        np.random.seed(42)
        expected = conformer.mol2unimolv2(molecule, max_atoms)
        np.random.set_state(state)
        atoms = np.array([atom.GetAtomicNum() for atom in made.GetAtoms()])
        ours = join([graph_of(smiles, atoms, made.GetConformer().GetPositions(), max_atoms)])
        assert ours.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(ours[name][0].numpy(), np.asarray(value), err_msg=name)


def test_a_structure_of_other_atoms_is_rejected(encoder):
    row = {"smiles": "CCO", "atoms": [6, 8, 6], "coords": np.zeros(9)}
    with pytest.raises(RowRejected, match="not those of its SMILES"):
        encoder.prepare(row)
    with pytest.raises(RowRejected, match="not finite"):
        encoder.prepare(row | {"atoms": [6, 6, 8], "coords": np.full(9, np.nan)})


def test_the_import_leaves_the_process_as_it_was(tmp_path):
    code = (
        "import logging, warnings\n"
        "from pipeline.encoders.unimol2.library import library\n"  # numpy adds filters
        "before = logging.root.level, list(warnings.filters)\n"
        "library('utils')\n"
        "print(before == (logging.root.level, list(warnings.filters)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert not list(tmp_path.iterdir())
