"""A molecule's conformer and graph as Uni-Mol2 reads them.

The same numbers as `unimol_tools.data.conformer.mol2unimolv2` gives, but that shortest paths come
from scipy: its own loop takes Numba, or a second a molecule.

Shapes: B molecules, N heavy atoms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from rdkit import Chem, rdBase
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from pipeline.encoders.unimol2.library import DEFAULT_MAX_ATOMS, library
from pipeline.runtime.errors import RowRejected

# Imported with this module: that takes seconds, and must not meet threads that encode.
CONFORMER = library("data.conformer")
UNREACHABLE = 510
SLOT = 16  # values that each feature of an atom or a bond has a row of the embedding for
PAIR_SLOT = 128
CROP_SEED = 42


class MolGraph(NamedTuple):
    """A molecule of N heavy atoms, or as many of them as the encoder takes.

    Attributes
    ----------
    numbers : (N,) int16, atomic numbers.
    coords : (N, 3) float32, Å.
    atoms : (N, 8) int16, rows of the embedding of atoms.
    degrees : (N,) int16, bonds of each atom and 2.
    bonds : (N, N, 3) int16, rows of the embedding of bonds.
    paths : (N, N) int16, bonds from atom to atom and 1.
    """

    numbers: np.ndarray
    coords: np.ndarray
    atoms: np.ndarray
    degrees: np.ndarray
    bonds: np.ndarray
    paths: np.ndarray

    @classmethod
    def of_row(cls, row: Mapping[str, Any], max_atoms: int = DEFAULT_MAX_ATOMS) -> MolGraph:
        """That of a row with `smiles`, `atoms` (N,) and flat `coords` (3N,).

        Raises
        ------
        RowRejected
            As `graph_of`, and if a coordinate is not finite.
        """
        coords = np.asarray(row["coords"], np.float32).reshape(-1, 3)
        if not np.isfinite(coords).all():
            raise RowRejected("coordinates that are not finite")
        return graph_of(row["smiles"], np.asarray(row["atoms"]), coords, max_atoms)


def graph_of(smiles: str, atoms: np.ndarray, coords: np.ndarray, max_atoms: int) -> MolGraph:
    """What Uni-Mol2 reads of a molecule.

    Parameters
    ----------
    smiles : that the conformer was made of; the order of atoms is the same.
    atoms : (N,) atomic numbers of the heavy atoms.
    coords : (N, 3), Å.
    max_atoms : larger molecules are cropped to a seeded random subset of atoms.

    Raises
    ------
    RowRejected
        If the atoms are not those of the SMILES, or an atom or bond is of a kind that Uni-Mol2 has
        no feature for.
    """
    with rdBase.BlockLogs():
        molecule = _without_hydrogens(smiles)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], np.int16)
    if not np.array_equal(numbers, atoms):
        raise RowRejected("the atoms of its structure are not those of its SMILES, in this order")
    try:
        x, ends, edges = CONFORMER.get_graph(molecule)
    except (ValueError, KeyError) as error:
        raise RowRejected(f"Uni-Mol2 has no feature for an atom or a bond: {error}") from None
    n = len(numbers)
    adjacency = np.zeros((n, n), np.int16)
    adjacency[ends[0], ends[1]] = 1
    bonds = np.full((n, n, edges.shape[1]), 2, np.int16)
    bonds[ends[0], ends[1]] += (edges + SLOT * np.arange(edges.shape[1]) + 2).astype(np.int16)
    paths = np.minimum(shortest_path(adjacency, unweighted=True), UNREACHABLE)
    whole = MolGraph(
        numbers,
        np.asarray(coords, np.float32),
        (x[:, 1:] + SLOT * np.arange(x.shape[1] - 1) + 3).astype(np.int16),
        adjacency.sum(axis=1) + np.int16(2),
        bonds,
        (paths + 1).astype(np.int16),
    )
    return whole if n <= max_atoms else _cropped(whole, max_atoms)


def _without_hydrogens(smiles: str) -> Chem.Mol:
    """The graph as unimol_tools has it: hydrogens were added to be embedded, then removed."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise RowRejected("SMILES does not parse")
    return Chem.RemoveAllHs(Chem.AddHs(molecule))


def _cropped(graph: MolGraph, max_atoms: int) -> MolGraph:
    mask = np.zeros(len(graph.numbers), dtype=bool)
    mask[:max_atoms] = True
    np.random.RandomState(CROP_SEED).shuffle(mask)
    squares = (graph.bonds[mask][:, mask], graph.paths[mask][:, mask])
    return MolGraph(*(part[mask] for part in graph[:4]), *squares)


def join(graphs: Sequence[MolGraph]) -> dict[str, Tensor]:
    """Molecules of one size as arguments of unimol_tools' model."""
    numbers, coords, atoms, degrees, bonds, paths = map(np.stack, zip(*graphs))
    B, N = numbers.shape
    kinds = atoms[..., 0]
    pairs = np.stack(np.broadcast_arrays(kinds[:, :, None] + 1, kinds[:, None] + 1 + PAIR_SLOT), -1)
    whole = {
        "atom_feat": atoms,
        "atom_mask": np.ones((B, N)),
        "edge_feat": bonds,
        "shortest_path": paths,
        "degree": degrees,
        "pair_type": pairs,
        "src_tokens": numbers,
    }
    batch = {name: torch.from_numpy(part.astype(np.int64)) for name, part in whole.items()}
    batch["attn_bias"] = torch.zeros(B, N + 1, N + 1)
    return {**batch, "src_coord": torch.from_numpy(coords)}
