import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from types import ModuleType

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem, rdDistGeom

from pipeline.conformers import child_process
from pipeline.conformers.child_process import ATTEMPTS, CHILD, IsolatedEmbedder
from pipeline.conformers.conformer import identity
from pipeline.conformers.nvmolkit_embedder import embed_many
from pipeline.conformers.rdkit_embedder import embed
from pipeline.molecules.identity import canonicalize, molecule_key
from pipeline.runtime.errors import InputError, RowRejected

# RDKit embeds this zinc porphyrin for minutes.
HANGS = (
    "CCC1=C(C)C2=[N+]3C1=Cc1c(C)c(CCC(=O)O)c4[n]1[Zn-2]31[n]3c(c(C)c(CC)c3=C2)=CC2=[N+]1C(=C4)"
    "C(CCC(=O)O)=C2C"
)


def reference(smiles):
    from unimol_tools.data.conformer import inner_smi2coords

    atoms, coords, _ = inner_smi2coords(smiles, seed=42, mode="fast", remove_hs=True)
    embedded = AllChem.EmbedMolecule(Chem.AddHs(Chem.MolFromSmiles(smiles)), randomSeed=42)
    return atoms, np.asarray(coords), "3d" if embedded == 0 else "2d"


def test_coordinates_equal_those_of_unimol_tools(hiv_smiles, moses_smiles):
    from rdkit import Chem

    smiles = hiv_smiles[:60] + moses_smiles[:40]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        expected = pool.map(reference, smiles, chunksize=5)
        made = pool.map(embed, smiles, chunksize=5)
    table = Chem.GetPeriodicTable()
    for (atoms, coords, kind), conformer in zip(expected, made):
        assert [table.GetElementSymbol(int(n)) for n in conformer.atoms] == atoms
        np.testing.assert_allclose(conformer.coords, coords, atol=1e-4)
        assert conformer.kind == kind
    kinds = [conformer.kind for conformer in made]
    assert "3d" in kinds and "2d" in kinds


@pytest.fixture
def isolated():
    embedder = IsolatedEmbedder(seed=42, hydrogens=False, limit_seconds=2)
    yield embedder
    embedder.close()


def test_a_child_process_gives_the_same_conformers(isolated, hiv_smiles):
    for smiles in hiv_smiles[:10]:
        here, there = embed(smiles), isolated.embed(smiles)
        np.testing.assert_array_equal(here.atoms, there.atoms)
        np.testing.assert_array_equal(here.coords, there.coords)
        assert here.kind == there.kind


def test_a_molecule_that_hangs_is_rejected_and_the_next_one_works(isolated):
    isolated.embed("CCO")
    started = time.monotonic()
    with pytest.raises(RowRejected, match="took more than 2 s"):
        isolated.embed(HANGS)
    assert time.monotonic() - started < 10
    assert len(isolated.embed("CCO").atoms) == 3


def test_a_molecule_that_kills_rdkit_is_rejected_and_the_next_one_works(monkeypatch):
    embedder = IsolatedEmbedder(seed=42, hydrogens=False, limit_seconds=60)
    killed, read_line = [], child_process._read_line

    def killing(child, limit_seconds):
        if limit_seconds == embedder.limit_seconds and len(killed) < ATTEMPTS:  # it is at work
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)
        return read_line(child, limit_seconds)

    monkeypatch.setattr(child_process, "_read_line", killing)
    with pytest.raises(RowRejected, match="RDKit crashed on it 2 times"):
        embedder.embed(HANGS)
    assert len(set(killed)) == ATTEMPTS
    assert len(embedder.embed("CCO").atoms) == 3
    embedder.close()


def test_a_molecule_whose_child_the_system_kills_once_gets_its_conformer(isolated):
    isolated.embed("CCO")
    os.kill(isolated._child.pid, signal.SIGKILL)
    assert len(isolated.embed("CCO").atoms) == 3


def test_a_molecule_that_needs_too_much_memory_is_rejected_and_the_next_one_works():
    embedder = IsolatedEmbedder(seed=42, hydrogens=False, limit_seconds=60, limit_gb=1.0)
    with pytest.raises(RowRejected, match="needs more than 1 GiB"):
        embedder.embed("C" * 8000)
    assert len(embedder.embed("CCO").atoms) == 3
    embedder.close()


def test_a_child_that_does_not_start_rejects_no_molecule():
    """Its memory would not do for any."""
    embedder = IsolatedEmbedder(seed=42, hydrogens=False, limit_seconds=60, limit_gb=0.01)
    with pytest.raises(InputError, match="does not start.*raise --conformer_gb, which is 0.01"):
        embedder.embed("CCO")


def test_a_child_whose_parent_is_gone_ends_also_while_rdkit_hangs():
    """Nobody is left to kill it, or to close its stdin."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    request = json.dumps({"smiles": HANGS, "alarm": 2}).encode()
    with subprocess.Popen([sys.executable, "-c", CHILD.format(4, 0)], **pipes) as child:
        assert child.stdout.readline() == b"ready\n"
        child.stdin.write(request + b"\n")
        child.stdin.flush()
        try:
            assert child.wait(timeout=30) == -signal.SIGALRM
        finally:
            child.kill()


def test_a_child_ends_with_its_embedder():
    embedder = IsolatedEmbedder(seed=42, hydrogens=False, limit_seconds=2)
    embedder.embed("CCO")
    child = embedder._child.pid
    del embedder
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_seed_and_hydrogens_change_the_conformer():
    assert not np.array_equal(embed("CCCCO", seed=1).coords, embed("CCCCO", seed=2).coords)
    assert len(embed("CCO", hydrogens=True).atoms) == 9


def test_without_mmff_the_embedded_coordinates_stay(isolated):
    smiles = "CC(=O)Oc1ccccc1C(=O)O"
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(molecule, randomSeed=42) == 0
    expected = molecule.GetConformer().GetPositions()[:13]
    embedder = IsolatedEmbedder(seed=42, hydrogens=False, limit_seconds=60, method="etkdg")
    for made in (embed(smiles, method="etkdg"), embedder.embed(smiles)):
        np.testing.assert_allclose(made.coords, expected, rtol=0, atol=1e-4)
    embedder.close()
    assert np.abs(embed(smiles).coords - expected).max() > 0.01


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [("[H][H]", "no atoms left"), ("C1CC", "does not parse")],
)
def test_what_has_no_conformer_is_rejected_with_a_reason(isolated, smiles, reason):
    with pytest.raises(RowRejected, match=reason):
        embed(smiles)
    with pytest.raises(RowRejected, match=reason):
        isolated.embed(smiles)


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("", "empty"),
        (None, "empty"),
        ("   ", "empty"),
        ("C1CC", "does not parse"),
        ("CCO)", "does not parse"),
        ("c1cccc1", "does not parse"),
    ],
)
def test_what_is_no_molecule_is_rejected_with_a_reason(smiles, reason):
    with pytest.raises(RowRejected, match=reason):
        canonicalize(smiles)


def test_every_spelling_of_a_molecule_has_one_key():
    keys = {molecule_key(canonicalize(s)) for s in ("OCC", "CCO", "C(O)C", " CCO ")}
    assert len(keys) == 1
    assert molecule_key(canonicalize("CCN")) not in keys


@pytest.fixture
def nvmolkit(monkeypatch):
    """nvMolKit's two calls, by RDKit: they check what the real ones do and take no others."""

    def embed_molecules(molecules, params, confsPerMolecule=1):
        assert params.useRandomCoords and confsPerMolecule == 1
        assert all(m.GetNumAtoms() for m in molecules)
        if any(m.GetNumAtoms() == 1 for m in molecules):
            raise ValueError("Molecule has one atom")
        for molecule in molecules:
            rdDistGeom.EmbedMultipleConfs(molecule, 1, params)

    def optimize(molecules):
        for molecule in molecules:
            if not AllChem.MMFFHasAllMoleculeParams(molecule):
                raise ValueError("lacking MMFF atom types", {"none": [], "no_params": [0]})
            AllChem.MMFFOptimizeMoleculeConfs(molecule)

    package, embedding, mmff = map(ModuleType, ("nvmolkit", "embed", "mmff"))
    embedding.EmbedMolecules, mmff.MMFFOptimizeMoleculesConfs = embed_molecules, optimize
    monkeypatch.setitem(sys.modules, "nvmolkit", package)
    monkeypatch.setitem(sys.modules, "nvmolkit.embedMolecules", embedding)
    monkeypatch.setitem(sys.modules, "nvmolkit.mmffOptimization", mmff)


def test_nvmolkit_gives_each_molecule_a_conformer_or_a_reason(nvmolkit):
    smiles = ["CCO", "C(", "c1ccccc1", "[Cl-]", "CC[Sn](C)C", "CCN", ""]
    made = embed_many(smiles, seed=42, hydrogens=False)
    assert [isinstance(each, RowRejected) for each in made] == [
        False,
        True,
        False,
        True,
        False,
        False,
        True,
    ]
    assert "parse" in str(made[1]) and "one atom" in str(made[3]) and "no atoms" in str(made[6])
    for text, each in zip(smiles, made):
        if not isinstance(each, RowRejected):
            molecule = Chem.MolFromSmiles(text)
            assert each.atoms.tolist() == [a.GetAtomicNum() for a in molecule.GetAtoms()]
            assert each.coords.shape == (len(each.atoms), 3) and each.kind == "3d"
    recipe = rdDistGeom.ETKDGv3()
    recipe.randomSeed, recipe.useRandomCoords = 42, True
    ethanol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    rdDistGeom.EmbedMolecule(ethanol, recipe)
    AllChem.MMFFOptimizeMolecule(ethanol)
    np.testing.assert_allclose(made[0].coords, ethanol.GetConformer().GetPositions()[:3], atol=1e-3)


def test_what_nvmolkit_cannot_embed_is_flat(nvmolkit, monkeypatch):
    monkeypatch.setattr(
        sys.modules["nvmolkit.embedMolecules"], "EmbedMolecules", lambda *_, **__: None
    )
    [flat] = embed_many(["c1ccccc1"], seed=42, hydrogens=False)
    assert flat.kind == "2d" and np.ptp(flat.coords[:, 2]) == 0


def test_nvmolkit_needs_its_package():
    with pytest.raises(InputError, match="nvmolkit is not installed"):
        identity(seed=42, hydrogens=False, method="nvmolkit")


def test_nvmolkits_version_decides_the_conformers(monkeypatch):
    monkeypatch.setattr("pipeline.conformers.conformer.metadata.version", lambda name: "0.6.0")
    assert identity(seed=42, hydrogens=False, method="nvmolkit")["nvmolkit"] == "0.6.0"
