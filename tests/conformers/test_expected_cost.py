"""What molecules are expected to take: counts without parsing, and rising with size."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from rdkit import Chem

from pipeline.conformers.expected_cost import atom_counts, conformer_seconds
from pipeline.molecules.identity import canonicalize

ODD = [
    "[Na+].[Cl-]", "BrCCl", "O=[Si]=O", "[2H]C([2H])Br", "C%10CCCCC%10",
    "[13cH]1ccccc1[N+](=O)[O-]",
    "[Cu+2].[O-]c1ccc(Br)nc1Cl", "c1c[nH]c2c1[se]cc2", "C1CC1/C=C\\[C@@H](N)B(O)O", "II", "*CC*",
]  # fmt: skip


def test_atoms_are_those_that_rdkit_counts(hiv_smiles, moses_smiles):
    smiles = [canonicalize(one) for one in [*hiv_smiles, *moses_smiles, *ODD]]
    molecules = [Chem.MolFromSmiles(one) for one in smiles]
    atoms, aromatic = atom_counts(pa.array(smiles))
    np.testing.assert_array_equal(atoms, [mol.GetNumAtoms() for mol in molecules])
    bare = Chem.MolFromSmarts("[c,n,o,s,p,b]")
    flat = [len(mol.GetSubstructMatches(bare)) for mol in molecules]
    assert (aromatic <= flat).all() and np.corrcoef(aromatic, flat)[0, 1] > 0.98  # but in brackets


def test_larger_and_less_aromatic_molecules_are_expected_to_take_longer():
    chains = conformer_seconds(pa.chunked_array([["C" * n for n in (1, 10, 30, 100)]]))
    assert (np.diff(chains) > 0).all() and 0.01 < chains[1] < 0.1 and chains[3] > 1
    flat, bulky = conformer_seconds(pa.array(["c1ccccc1", "C1CCCCC1"]))
    assert flat < bulky


def test_nothing_gives_nothing():
    assert conformer_seconds(pa.array([], pa.string())).shape == (0,)
    assert np.isfinite(conformer_seconds(pa.array([""]))).all()
