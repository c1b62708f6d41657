"""SMILES to one 3D structure by RDKit, as unimol_tools makes it."""

from __future__ import annotations

from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom, rdForceFieldHelpers

from pipeline.conformers.conformer import (
    METHODS,
    Conformer,
    conformer_of,
    first_line,
    with_hydrogens,
)
from pipeline.runtime.errors import RowRejected

DEFAULT_SEED = 42


def embed(
    smiles: str,
    *,
    seed: int = DEFAULT_SEED,
    hydrogens: bool = False,
    method: str = METHODS[0],
) -> Conformer:
    """One conformer, equal to `unimol_tools.data.conformer.inner_smi2coords` in mode "fast".

    Hydrogens are added, the molecule is embedded by ETKDG and relaxed by MMFF94; where MMFF
    has no parameters the embedded coordinates stay. Where the embedding fails, 2D coordinates
    take its place and `kind` is "2d".

    Parameters
    ----------
    hydrogens : keep hydrogens in the result.
    method : "etkdg+mmff", or "etkdg", which takes half the time and gives other coordinates.

    Raises
    ------
    RowRejected
        If the SMILES does not parse, RDKit raises, or no atom is left. (unimol_tools puts
        every atom at the origin where RDKit raises.)
    """
    molecule = with_hydrogens(smiles)
    try:
        kind = "3d" if rdDistGeom.EmbedMolecule(molecule, randomSeed=seed) == 0 else "2d"
        if kind == "3d" and method == METHODS[0]:
            _relax(molecule)
        elif kind == "2d":
            rdDepictor.Compute2DCoords(molecule)
    except (RuntimeError, ValueError) as error:  # RDKit's C++ invariants surface as these
        raise RowRejected(f"RDKit cannot place its atoms: {first_line(error)}") from None
    return conformer_of(molecule, kind, hydrogens)


def _relax(molecule: Chem.Mol) -> None:
    try:
        rdForceFieldHelpers.MMFFOptimizeMolecule(molecule)
    except (RuntimeError, ValueError):
        pass  # no MMFF parameters: the embedded coordinates stay, as in unimol_tools
