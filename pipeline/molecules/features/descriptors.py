"""Descriptors: what molecules are in plain numbers. Thirteen by RDKit; for sequences see there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import Crippen, Descriptors, Mol, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold

from pipeline.molecules.features.sequence_descriptors import (
    SEQUENCE_DESCRIPTORS,
    sequence_descriptors,
)
from pipeline.molecules.kinds import KINDS, SEQUENCE, SMILES, Kind

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


def descriptor_names(kind: Kind) -> tuple[str, ...]:
    """What `descriptor_values` gives, in order: 13 descriptors, or the 26 of sequences."""
    return SEQUENCE_DESCRIPTORS if kind == SEQUENCE else tuple(DESCRIPTORS)


def descriptor_values(texts: Sequence[str], kind: Kind = SMILES) -> np.ndarray:
    """The descriptors of n molecules, as `descriptor_names` has them: (n, 13) or (n, 26) float64.

    Molecular weight is in g/mol, TPSA in Å²; the others are counts, shares or logarithms. For
    sequences see `sequence_descriptors`.
    """
    describe = _of_sequence if kind == SEQUENCE else _descriptors
    values = np.array([describe(text) for text in texts], dtype=float)
    return values.reshape(len(texts), len(descriptor_names(kind)))


def names_of(values: np.ndarray) -> tuple[str, ...]:
    """Names of the columns of what `descriptor_values` gave; its width tells the kind."""
    every = map(descriptor_names, KINDS.values())
    return {len(names): names for names in every}[values.shape[1]]


# The runs of a comparison have the same molecules.
@lru_cache(maxsize=20_000)
def _descriptors(smiles: str) -> tuple[float, ...]:
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        return tuple(describe(molecule) for describe in DESCRIPTORS.values())


_of_sequence = lru_cache(maxsize=20_000)(sequence_descriptors)
