"""What encoders by RDKit have in common: no weights, no torch, one molecule at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import rdkit
from rdkit import Chem, rdBase

from pipeline.encoders.base import refuse_finetuned
from pipeline.runtime.errors import RowRejected


class RdkitEncoder:
    """A feature vector that is a function of the molecule's graph.

    Subclasses have `name`, `dim`, `RECIPE`, which is what decides the features besides RDKit's
    version, and `features_of`.

    Parameters
    ----------
    finetuned : must be None.
    **_ : settings of other encoders are ignored: there are no weights and no device.
    """

    name: ClassVar[str]
    dim: ClassVar[int]
    RECIPE: ClassVar[dict[str, Any]]
    takes = "smiles"
    needs_conformers = False
    takes_given_structures = False
    uses_torch = False
    graph = None

    @staticmethod
    def core_seconds(weights: str | None) -> float:
        """That of the slower one, the descriptors."""
        return 0.0016

    def __init__(self, finetuned: str | None = None, **_: Any):
        refuse_finetuned(self.name, finetuned)

    @classmethod
    def identity(cls, finetuned: str | None = None, **_: Any) -> dict[str, Any]:
        """What decides the features: the recipe and RDKit's version.

        Raises InputError if a finetuned encoder is asked for.
        """
        refuse_finetuned(cls.name, finetuned)
        return {
            "encoder": cls.name,
            "weights": f"rdkit {rdkit.__version__}",
            "rdkit": rdkit.__version__,
            **cls.RECIPE,
        }

    def features_of(self, molecule: Chem.Mol) -> np.ndarray:
        """Features (dim,) of a parsed molecule; raises RowRejected if it has none."""
        raise NotImplementedError

    def encode_smiles(self, smiles: Sequence[str]) -> np.ndarray:
        """Features (n, dim) float32 of SMILES, in order; raises RowRejected as `prepare`."""
        return self.encode_prepared([self.prepare({"smiles": text}) for text in smiles])

    def prepare(self, row: Mapping[str, Any]) -> np.ndarray:
        """The features (dim,) of a row's `smiles`: here already, so that its faults are its own.

        Raises
        ------
        RowRejected
            If RDKit cannot parse the SMILES, or a feature is not finite.
        """
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(row["smiles"])
            if molecule is None:
                raise RowRejected("RDKit cannot parse the SMILES")
            return self.features_of(molecule)

    def encode_prepared(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Features (n, dim) float32 of what `prepare` returned, in order."""
        features = np.empty((len(prepared), self.dim), np.float32)
        for row, found in zip(features, prepared):
            row[:] = found
        return features

    def take_token_counts(self) -> tuple[int, int]:
        """None: nothing is padded."""
        return 0, 0
