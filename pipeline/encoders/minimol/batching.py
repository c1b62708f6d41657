"""Batches of molecular graphs that fit a memory budget: one graph of many parts, no padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.encoders.minimol.featurizer import BOND_KINDS, MolGraph

# On a CPU a batch shall stay near the caches, on a GPU within its memory (bench/minimol.md).
CPU_ATOMS = 2048
GPU_MEMORY_SHARE = 0.8
ATOM_BYTES = 32 * 1024  # at the peak of a layer, its bonds' messages included


@dataclass(frozen=True)
class Budget:
    """What one forward pass may hold: molecules, and atoms, at most.

    A single molecule of more atoms still gets a batch of its own.
    """

    molecules: int
    atoms: int

    def halved(self, atoms: int) -> Budget:
        """Half of a batch that did not fit, which may be far below a budget that never bound."""
        return replace(self, atoms=min(self.atoms, atoms) // 2)


def budget_for(device: torch.device, molecules: int, memory_share: float = 1.0) -> Budget:
    """The budget of a device: on a GPU from its free memory, on a CPU from its caches.

    Parameters
    ----------
    molecules : upper bound on molecules.
    memory_share : part of the GPU's free memory that this process may take.
    """
    if device.type != "cuda":
        return Budget(molecules, CPU_ATOMS)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return Budget(molecules, int(GPU_MEMORY_SHARE * memory_share * free_bytes / ATOM_BYTES))


def plan_batches(atoms: Sequence[int], budget: Budget) -> list[range]:
    """Cut molecules, in their order, into batches within the budget.

    Parameters
    ----------
    atoms : atoms of each molecule.

    Returns
    -------
    list of ranges
        Of places in `atoms`.
    """
    batches, start, held = [], 0, 0
    for place, count in enumerate(atoms):
        full = held + count > budget.atoms or place - start == budget.molecules
        if place > start and full:
            batches.append(range(start, place))
            start, held = place, 0
        held += count
    if start < len(atoms):
        batches.append(range(start, len(atoms)))
    return batches


class GraphBatch(NamedTuple):
    """G molecules of N atoms in all, as one graph.

    Each bond carries a message both ways. What an atom sends depends on it and on the kind of bond
    alone, so there are U different messages and E deliveries of them, in the order of receivers.

    Attributes
    ----------
    atoms : (N, 85) float32.
    eigen : (N, 8, 2) float32, eigenvalues and eigenvectors.
    returns : (N, 16) float32.
    sender, kind : (U,) int64, the atom that sends a message, and the kind of bond.
    delivered : (E,) int64, which message.
    first_delivery : (N,) int64, where an atom's deliveries start.
    molecule : (N,) int64, the molecule of an atom.
    first_atom, sizes : (G,) int64 each, where a molecule's atoms start, and their number.
    """

    atoms: Tensor
    eigen: Tensor
    returns: Tensor
    sender: Tensor
    kind: Tensor
    delivered: Tensor
    first_delivery: Tensor
    molecule: Tensor
    first_atom: Tensor
    sizes: Tensor

    def to(self, device: torch.device) -> GraphBatch:
        """The batch on a device."""
        if device.type == "cpu":
            return self
        return GraphBatch(*(part.pin_memory().to(device, non_blocking=True) for part in self))


def join(graphs: Sequence[MolGraph]) -> GraphBatch:
    """Molecules, one at least, as one graph of as many parts, on the CPU."""
    sizes = np.array([len(graph.atoms) for graph in graphs])
    first_atom = np.cumsum(sizes) - sizes
    bonds = np.concatenate(
        [graph.bonds + start for graph, start in zip(graphs, first_atom)]
    )  # int64, as the starts are
    kinds = np.concatenate([graph.kinds for graph in graphs]).astype(np.int64)
    senders = np.concatenate([bonds[:, 0], bonds[:, 1]])
    receivers = np.concatenate([bonds[:, 1], bonds[:, 0]])
    messages, message = np.unique(
        senders * BOND_KINDS + np.concatenate([kinds, kinds]), return_inverse=True
    )
    deliveries = np.bincount(receivers, minlength=sizes.sum())
    eigen = [
        np.concatenate([getattr(graph, name) for graph in graphs])
        for name in ("eigenvalues", "eigenvectors")
    ]
    parts = (
        np.concatenate([graph.atoms for graph in graphs]).astype(np.float32),
        np.stack(eigen, axis=2).astype(np.float32),
        np.concatenate([graph.returns for graph in graphs]).astype(np.float32),
        messages // BOND_KINDS,
        messages % BOND_KINDS,
        message[np.argsort(receivers, kind="stable")],
        np.cumsum(deliveries) - deliveries,
        np.repeat(np.arange(len(graphs)), sizes),
        first_atom,
        sizes,
    )
    return GraphBatch(*map(torch.from_numpy, parts))
