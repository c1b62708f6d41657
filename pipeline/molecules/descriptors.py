"""Thirteen descriptors by RDKit: what molecules are in plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import Crippen, Descriptors, Mol, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold

DESCRIPTORS: dict[str, Callable[[Mol], float]] = {
    "heavy atoms": Mol.GetNumHeavyAtoms,
    "molecular weight": Descriptors.MolWt,
    "rings": rdMolDescriptors.CalcNumRings,
    "aromatic rings": rdMolDescriptors.CalcNumAromaticRings,
    "scaffold atoms": lambda mol: MurckoScaffold.GetScaffoldForMol(mol).GetNumAtoms(),
    "rotatable bonds": rdMolDescriptors.CalcNumRotatableBonds,
    "H-bond donors": rdMolDescriptors.CalcNumHBD,
    "H-bond acceptors": rdMolDescriptors.CalcNumHBA,
    "TPSA": rdMolDescriptors.CalcTPSA,
    "logP": Crippen.MolLogP,
    "fraction of sp3 carbons": rdMolDescriptors.CalcFractionCSP3,
    "heteroatoms": rdMolDescriptors.CalcNumHeteroatoms,
    "formal charge": Chem.GetFormalCharge,
}


def descriptor_values(smiles: Sequence[str]) -> np.ndarray:
    """The `DESCRIPTORS` of n molecules, in that order: (n, 13) float64.

    Molecular weight is in g/mol, TPSA in Å²; the others are counts, shares or logarithms.
    """
    values = np.array([_descriptors(one) for one in smiles], dtype=float)
    return values.reshape(len(smiles), len(DESCRIPTORS))


# The runs of a comparison have the same molecules.
@lru_cache(maxsize=20_000)
def _descriptors(smiles: str) -> tuple[float, ...]:
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        return tuple(describe(molecule) for describe in DESCRIPTORS.values())
