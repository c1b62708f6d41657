"""Detectors as arrays and a few numbers, so that they are kept without pickle.

No library's objects are kept either: a checkpoint outlives the version of scikit-learn that
fitted it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from pipeline.detectors.base import Inputs, check_training
from pipeline.detectors.settings import DetectorSettings
from pipeline.runtime.errors import InputError

ARRAYS, NUMBERS = "detector.safetensors", "detector.json"


class Training(NamedTuple):
    """What a detector is fitted to, as `Detector.fit` takes it."""

    id_train: Inputs
    ood_train: Inputs | None
    labels: np.ndarray | None
    settings: DetectorSettings
    seed: int


@dataclass(frozen=True)
class KeptDetector:
    """What detectors here share: all that a score needs is in these two.

    Attributes
    ----------
    arrays : name → array.
    numbers : JSON-ready.
    """

    name: ClassVar[str]
    needs_ood: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, id_train: Inputs, ood_train: Inputs | None, labels: np.ndarray | None,
        settings: DetectorSettings, seed: int,
    ) -> Self:  # fmt: skip
        """As `Detector.fit`; the checks of `check_training` come first."""
        check_training(cls, id_train, ood_train, labels)
        return cls._fitted(Training(id_train, ood_train, labels, settings, seed))

    @classmethod
    def _fitted(cls, training: Training) -> Self:
        """What this detector learns from molecules that it can learn from."""
        raise NotImplementedError

    def save(self) -> dict[str, bytes]:
        """File name → content: the arrays as safetensors, the numbers as JSON."""
        return {
            ARRAYS: array_bytes(self.arrays),
            NUMBERS: json.dumps({"detector": self.name, **self.numbers}).encode(),
        }

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> Self:
        """What `save` gave. InputError if files are missing or are another detector's."""
        numbers = json.loads(member(files, NUMBERS))
        found = numbers.pop("detector", None)
        if found != cls.name:
            raise InputError(f"{NUMBERS} holds the detector {found!r}, expected {cls.name!r}")
        return cls(read_arrays(member(files, ARRAYS)), numbers)


def member(files: Mapping[str, bytes], name: str) -> bytes:
    """The content of one file of a detector. InputError if it is missing."""
    if name not in files:
        raise InputError(f"the detector lacks its file {name}; train again")
    return files[name]


def array_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the content of a safetensors file."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Name → array of a safetensors file, in the order of names. InputError if it is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(sorted(load(content).items()))  # safetensors gives them in no order
    except SafetensorError as error:
        raise InputError(f"a detector's arrays cannot be read ({error}); train again") from None
