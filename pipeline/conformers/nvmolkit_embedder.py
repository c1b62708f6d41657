"""Conformers by nvMolKit: ETKDGv3 and MMFF94 for many molecules at once on a GPU.

The algorithms are RDKit's, started from random coordinates, so the coordinates are others than
those of `rdkit_embedder.embed`, and others again where a molecule stands in another batch
(bench/cuda.md). nvMolKit (github.com/NVIDIA-BioNeMo/nvMolKit) is imported
only when it is used: it needs a GPU, and the one RDKit version that its wheel names.
"""

from __future__ import annotations

from collections.abc import Sequence

from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDistGeom, rdForceFieldHelpers

from pipeline.conformers.conformer import Conformer, conformer_of, first_line, with_hydrogens
from pipeline.runtime.errors import RowRejected


def embed_many(
    smiles: Sequence[str], *, seed: int, hydrogens: bool
) -> list[Conformer | RowRejected]:
    """A conformer of each SMILES, or why it has none, in order.

    As `rdkit_embedder.embed`: a molecule without MMFF parameters stays as embedded, one
    that cannot be embedded gets 2D coordinates.
    """
    made: list[Chem.Mol | RowRejected] = []
    for one in smiles:
        try:
            molecule = with_hydrogens(one)
        except RowRejected as rejection:
            made.append(rejection)
        else:  # nvMolKit would refuse the whole batch
            made.append(molecule if molecule.GetNumAtoms() else RowRejected("no atoms"))
    molecules = [each for each in made if isinstance(each, Chem.Mol)]
    refused = _embed_in_halves(molecules, seed)
    return [
        each if isinstance(each, RowRejected) else refused.get(id(each)) or _finish(each, hydrogens)
        for each in made
    ]


def _embed_in_halves(molecules: list[Chem.Mol], seed: int) -> dict[int, RowRejected]:
    """Embed and relax in place; by `id`, those that nvMolKit refuses.

    nvMolKit raises for a whole batch, so a batch that fails is halved until the molecule that
    it fails on is alone.
    """
    try:
        _embed_and_relax(molecules, seed)
    except (RuntimeError, ValueError) as error:
        if len(molecules) == 1:
            return {id(molecules[0]): RowRejected(f"nvMolKit refuses it: {first_line(error)}")}
        half = len(molecules) // 2
        return _embed_in_halves(molecules[:half], seed) | _embed_in_halves(molecules[half:], seed)
    return {}


def _embed_and_relax(molecules: list[Chem.Mol], seed: int) -> None:
    from nvmolkit.embedMolecules import EmbedMolecules
    from nvmolkit.mmffOptimization import MMFFOptimizeMoleculesConfs

    for molecule in molecules:
        molecule.RemoveAllConformers()
    recipe = rdDistGeom.ETKDGv3()
    recipe.randomSeed, recipe.useRandomCoords = seed, True
    EmbedMolecules(molecules, recipe, confsPerMolecule=1)
    relaxable = [
        molecule
        for molecule in molecules
        if molecule.GetNumConformers() and rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule)
    ]
    MMFFOptimizeMoleculesConfs(relaxable)


def _finish(molecule: Chem.Mol, hydrogens: bool) -> Conformer | RowRejected:
    kind = "3d" if molecule.GetNumConformers() else "2d"
    try:
        if kind == "2d":
            rdDepictor.Compute2DCoords(molecule)
        return conformer_of(molecule, kind, hydrogens)
    except RowRejected as rejection:
        return rejection
