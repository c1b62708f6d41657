"""What every detector takes in and offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from pipeline.detectors.settings import DetectorSettings
from pipeline.runtime.errors import InputError


@dataclass(frozen=True)
class Inputs:
    """What detectors see of n molecules.

    Attributes
    ----------
    features : (n, width) float32, all views side by side, standardised on ID training molecules.
    bits : (n, w) uint8, packed fingerprints: ECFP4, or of sequences k-mers.
    own : (n,) int64: a molecule's row among the ID training molecules if it is one of them, else
        -1. A detector that measures distances to these leaves that row out, so that a training
        molecule is scored as if it were new. Rows of an OOD training set have -1.
    blocks : columns of each view in `features`.
    """

    features: np.ndarray
    bits: np.ndarray
    own: np.ndarray
    blocks: dict[str, slice] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.features)


@runtime_checkable
class Detector(Protocol):
    """Gives each molecule a score; higher means more OOD.

    Attributes
    ----------
    name : the name in `pipeline.detectors.registry`.
    needs_ood, needs_labels : what `fit` cannot do without, beside ID molecules.
    """

    name: ClassVar[str]
    needs_ood: ClassVar[bool]
    needs_labels: ClassVar[bool]

    @classmethod
    def fit(
        cls, id_train: Inputs, ood_train: Inputs | None, labels: np.ndarray | None,
        settings: DetectorSettings, seed: int,
    ) -> Self:  # fmt: skip
        """A detector that knows the ID training molecules.

        Parameters
        ----------
        id_train : with `own` 0 … n-1.
        ood_train : molecules known to be OOD, or None.
        labels : (n,) of `id_train`: 0 and 1, or a measured value; NaN where none is known.

        Raises
        ------
        InputError
            If what it needs is missing, or the molecules cannot be learned from.
        """
        ...

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Scores (n,) float64, higher for more OOD; the same in any company of molecules."""
        ...

    def save(self) -> dict[str, bytes]:
        """File name → content: safetensors and JSON, never pickle."""
        ...

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        """What `save` gave, as a detector with equal scores."""
        ...


def check_training(
    detector: type[Detector], id_train: Inputs, ood_train: Inputs | None, labels: np.ndarray | None
) -> None:
    """Whether a detector has what it needs to be fitted.

    Raises
    ------
    InputError
        If there are fewer than two ID molecules, or OOD molecules or labels are missing, or a
        feature is not finite.
    """
    flag = f"--detector {detector.name}"
    if len(id_train) < 2:
        raise InputError(f"{flag} needs at least 2 ID training molecules, got {len(id_train)}")
    if detector.needs_ood and not (ood_train is not None and len(ood_train)):
        raise InputError(
            f"{flag} learns from molecules known to be OOD, and there are none; give some, or "
            "take a detector that needs ID molecules alone, such as knn or tanimoto"
        )
    if detector.needs_labels and labels is None:
        raise InputError(
            f"{flag} learns from labels of the ID training molecules, and there are none; name "
            "their column with --label_column, or take a detector without labels, such as knn"
        )
    for kind, inputs in (("ID", id_train), ("OOD", ood_train if detector.needs_ood else None)):
        if inputs is not None:
            _check_finite(inputs.features, f"{flag}: of the {kind} training molecules")


def check_width(inputs: Inputs, width: int, name: str) -> None:
    """Raises InputError unless molecules have as many features as a detector was fitted on."""
    if inputs.features.shape[1] != width:
        raise InputError(
            f"the detector {name} was fitted on {width} features, and these molecules have "
            f"{inputs.features.shape[1]}; give them the views that it was trained with"
        )


def _check_finite(features: np.ndarray, whose: str) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise InputError(
            f"{whose}, {len(bad):,} have a feature that is not a finite number, the first in row "
            f"{bad[0]}; leave these molecules out"
        )
