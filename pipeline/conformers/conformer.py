"""A conformer: one 3D structure of a molecule, what decides it, and what all embedders share."""

from __future__ import annotations

from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import rdkit
from rdkit import Chem

from pipeline.runtime.errors import InputError, RowRejected

# ETKDG embedding, relaxed by MMFF94 or left as embedded; or both of them by nvMolKit on a GPU.
METHODS = ("etkdg+mmff", "etkdg", "nvmolkit")
NVMOLKIT = METHODS[2]
CODE_VERSION = 1  # raise it when the same SMILES would give another conformer


class Conformer(NamedTuple):
    """atoms: (N,) uint8 atomic numbers; coords: (N, 3) float32, Å; kind: "3d" or "2d"."""

    atoms: np.ndarray
    coords: np.ndarray
    kind: str


def identity(*, seed: int, hydrogens: bool, method: str = METHODS[0]) -> dict[str, Any]:
    """What decides a conformer besides its SMILES, JSON-ready.

    Raises
    ------
    InputError
        If the method needs nvMolKit and it is not installed.
    """
    decides = {
        "method": method,
        "code_version": CODE_VERSION,
        "rdkit": rdkit.__version__,
        "seed": seed,
        "hydrogens": hydrogens,
    }
    if method == NVMOLKIT:
        try:
            decides[NVMOLKIT] = metadata.version(NVMOLKIT)
        except metadata.PackageNotFoundError:
            raise InputError(
                "--conformer_method nvmolkit: the package nvmolkit is not installed; it needs a "
                "GPU and the RDKit version that its wheel names"
            ) from None
    return decides


def with_hydrogens(smiles: str) -> Chem.Mol:
    """The molecule with explicit hydrogens; RowRejected if its SMILES does not parse."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise RowRejected("SMILES does not parse")
    return Chem.AddHs(molecule)


def conformer_of(molecule: Chem.Mol, kind: str, hydrogens: bool) -> Conformer:
    """The molecule's only conformer, with or without hydrogens.

    Raises
    ------
    RowRejected
        If no atom is left, or a coordinate is not finite.
    """
    coords = molecule.GetConformer().GetPositions().astype(np.float32)
    atoms = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.uint8)
    if not hydrogens:
        heavy = atoms != 1
        atoms, coords = atoms[heavy], coords[heavy]
    if len(atoms) == 0:
        raise RowRejected("no atoms left after removing hydrogens")
    if not np.isfinite(coords).all():
        raise RowRejected("RDKit gave coordinates that are not finite")
    return Conformer(atoms, coords, kind)


def first_line(error: Exception) -> str:
    """What an error says first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
