"""The Uni-Mol2 encoder: conformers and SMILES in, one feature a molecule out.

Drivers ask this module for `UniMol2Encoder.identity` alone: torch, RDKit and unimol_tools are
imported where an encoder is made.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.encoders.base import TokenCounts, refuse_finetuned
from pipeline.encoders.from_smiles import features_of_smiles
from pipeline.encoders.unimol2.library import DEFAULT_MAX_ATOMS, PACKAGE, check_installed
from pipeline.encoders.unimol2.weights import checked_size, resolve_weights
from pipeline.runtime.errors import InputError

if TYPE_CHECKING:
    import torch

    from pipeline.conformers.conformer import Conformer
    from pipeline.encoders.unimol.batching import Budget
    from pipeline.encoders.unimol2.graph import MolGraph

check_installed()  # without the package, the import of this module fails

CODE_VERSION = 1  # raise it when the same input would give other features
# Numbers that a pair of atoms takes at the peak of a layer, in float32: the outer product of both
# atoms and some tensors of the pairs' width. On a CPU a batch shall stay small.
PAIR_BYTES = 4 * (2 * 64**2 + 10 * 512)
CPU_TOKENS, CPU_PAIRS = 2_048, 8_192
GPU_MEMORY_SHARE = 0.8


class UniMol2Encoder:
    """Uni-Mol2 (Ji et al., NeurIPS 2024) by unimol_tools' own model, on one device.

    In unimol_tools a molecule's feature depends on those that it shares a batch with: padding is
    not masked, and some sums are scaled by the padded size. Here a batch holds molecules of one
    size, so there is no padding, and features are those of unimol_tools' batches of one.

    Parameters
    ----------
    weights, model_size : see `pipeline.encoders.unimol2.weights.resolve_weights`; the size is
        "84m" if None.
    device : "cpu", "cuda", "cuda:1", ..., or "auto" for a GPU if there is one.
    precision : dtype of the matrix products: fp32, bf16, fp16, or "auto" (see
        `default_precision`); norms, softmax and what runs from layer to layer are float32.
    encoding_batch_size : upper bound on molecules in one forward pass.
    budget : what one forward pass may hold; None takes it from the device's free memory.
        It halves when the device runs out of memory.
    memory_share : part of the device's free memory that this encoder may take.
    max_atoms : larger molecules are cropped to a seeded random subset of atoms.
    token_order, finetuned : must be "auto" and None.
    """

    name = "unimol2"
    takes = "smiles"
    needs_conformers = True
    takes_given_structures = False
    uses_torch = True
    graph = "pipeline.encoders.unimol2.graph:MolGraph"

    @staticmethod
    def core_seconds(weights: str | None) -> float:
        """Not measured: most of its models are large."""
        return math.inf

    def __init__(
        self,
        weights: str | None = None,
        model_size: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        encoding_batch_size: int = 256,
        budget: Budget | None = None,
        memory_share: float = 1.0,
        max_atoms: int = DEFAULT_MAX_ATOMS,
        token_order: str = "auto",
        finetuned: str | None = None,
    ):
        from pipeline.encoders.unimol.precision import settled
        from pipeline.encoders.unimol2.model import load_model

        importlib.import_module("pipeline.encoders.unimol2.graph")  # now: see `library`
        _refuse_unused(token_order, finetuned)
        size = checked_size(model_size)
        self.device, self.dtype = settled(device, precision)
        model = load_model(resolve_weights(weights, size), size)
        self.dim = model.args.encoder_embed_dim
        self.model = model.to(self.device)
        self.budget = budget or _budget_for(self.device, encoding_batch_size, memory_share)
        self.max_atoms = max_atoms
        self._counts = TokenCounts()

    @staticmethod
    def identity(
        weights: str | None = None,
        model_size: str | None = None,
        precision: str = "auto",
        max_atoms: int = DEFAULT_MAX_ATOMS,
        token_order: str = "auto",
        finetuned: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Everything that decides the features besides the conformer, JSON-ready.

        Raises
        ------
        InputError
            If the weights cannot be had or do not fit, or a setting is of no use to Uni-Mol2.
        """
        _refuse_unused(token_order, finetuned)
        size = checked_size(model_size)
        resolved = resolve_weights(weights, size)
        if resolved.path is not None:
            from pipeline.encoders.unimol2.model import check_checkpoint

            check_checkpoint(resolved.path, size)
        return {
            "encoder": UniMol2Encoder.name,
            "code_version": CODE_VERSION,
            "model_size": size,
            "weights": resolved.label,
            "weights_sha256": resolved.sha256,
            "hydrogens": False,  # they are placed, and then left out
            "precision": precision,
            "max_atoms": max_atoms,
            PACKAGE: metadata.version(PACKAGE),
        }

    def encode_smiles(self, smiles: Sequence[str]) -> np.ndarray:
        """Features of SMILES, each embedded exactly as it is written.

        As `UniMolEncoder.encode_smiles`, on all cores.

        Returns
        -------
        (n, dim) float32 array in the order given.

        Raises
        ------
        pipeline.runtime.errors.RowRejected
            If a SMILES does not parse, RDKit cannot place its atoms, or Uni-Mol2 has no feature
            for one of them.
        """
        smiles = list(smiles)

        def encode(places: Sequence[int], made: Sequence[Conformer]) -> np.ndarray:
            rows = [
                {"smiles": smiles[place], "atoms": each.atoms, "coords": each.coords}
                for place, each in zip(places, made)
            ]
            return self.encode_prepared([self.prepare(row) for row in rows])

        return features_of_smiles(
            smiles, encode, self.dim,
            hydrogens=False, device=self.device.type, what="unimol2 features",
        )  # fmt: skip

    def prepare(self, row: Mapping[str, Any]) -> MolGraph:
        """A row's `smiles`, `atoms` and `coords` as Uni-Mol2's graph; see `MolGraph.of_row`."""
        from pipeline.encoders.unimol2.graph import MolGraph

        return MolGraph.of_row(row, self.max_atoms)

    def encode_prepared(self, graphs: Sequence[MolGraph]) -> np.ndarray:
        """Features (n, dim) float32 of graphs that `prepare` made, in order, in any mix of sizes.

        Raises
        ------
        MemoryError
            If the device cannot hold even one of the molecules.
        """
        from pipeline.encoders.unimol.batching import batches_that_fit
        from pipeline.encoders.unimol.precision import autocast

        features = np.empty((len(graphs), self.dim), dtype=np.float32)
        batches = batches_that_fit(
            [len(graph.numbers) + 1 for graph in graphs],
            lambda lengths: _of_one_size(lengths, self.budget),
            lambda rows: self._run([graphs[row] for row in rows]),
            self._halve_budget,
        )
        # Around all batches, so that weights are cast once.
        with autocast(self.device, self.dtype):
            outputs = list(batches)
        for rows, output in outputs:
            features[rows] = output.cpu().numpy()
        return features

    def take_token_counts(self) -> tuple[int, int]:
        """Tokens computed since this was last asked; there is no padding."""
        return self._counts.take()

    def _run(self, graphs: Sequence[MolGraph]) -> torch.Tensor:
        """One batch's features (m, dim) float32, on the device."""
        import torch

        from pipeline.encoders.unimol2.graph import join

        batch = {name: part.to(self.device) for name, part in join(graphs).items()}
        with torch.no_grad():
            output = self.model(**batch, return_repr=True)
        self._counts.add(len(graphs) * (len(graphs[0].numbers) + 1))
        return output.float()

    def _halve_budget(self, molecules: int, longest: int) -> None:
        from pipeline.encoders.unimol.batching import half_of

        self.budget = half_of(self.budget, self.device, molecules, longest)


def _refuse_unused(token_order: str, finetuned: str | None) -> None:
    refuse_finetuned(UniMol2Encoder.name, finetuned)
    if token_order != "auto":
        raise InputError("--token_order: Uni-Mol2's tokens are atomic numbers; leave it out")


def _budget_for(device: torch.device, molecules: int, memory_share: float) -> Budget:
    """The budget of a device: on a GPU from its free memory."""
    import torch

    from pipeline.encoders.unimol.batching import Budget

    if device.type != "cuda":
        return Budget(molecules, CPU_TOKENS, CPU_PAIRS, 0)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    pairs = int(GPU_MEMORY_SHARE * memory_share * free_bytes / PAIR_BYTES)
    return Budget(molecules, pairs, pairs, 0)


def _of_one_size(lengths: np.ndarray, budget: Budget) -> list[np.ndarray]:
    """Batches (rows of `lengths`) of molecules of one size, long ones first, within the budget."""
    from pipeline.encoders.unimol.batching import plan_batches

    batches = []
    for length in np.unique(lengths)[::-1]:
        rows = np.flatnonzero(lengths == length)
        batches += [rows[part] for part in plan_batches(lengths[rows], budget)]
    return batches
