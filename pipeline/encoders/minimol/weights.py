"""MiniMol's weights by name, each with the shape that the engine expects, all of them used."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.encoders.minimol.model_file import read_tensors
from pipeline.runtime.errors import InputError

CONSTANTS = ("val_", "add_", "clone")  # the exporter's names for numbers that are no weights
MOVED = ("val_10", "val_12", "val_14")  # and for three weights that it transposed


class Weights:
    """The tensors of a model file, to be taken once each, in float64.

    Parameters
    ----------
    path : the model file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._left = {
            name: values
            for name, values in read_tensors(self.path).items()
            if name in MOVED or not name.startswith(CONSTANTS)
        }

    def take(self, name: str, *shape: int) -> np.ndarray:
        """One tensor.

        Raises
        ------
        InputError
            If it is not there, or has another shape.
        """
        found = self._left.pop(name, None)
        if found is None or found.shape != shape:
            what = "is not there" if found is None else f"has the shape {found.shape}"
            raise InputError(
                f"{self.path}: the weight {name} {what}, expected the shape {shape}: this is not "
                "MiniMol as it is known here"
            )
        return found.astype(np.float64)

    def linear(self, name: str, out: int, into: int) -> tuple[np.ndarray, np.ndarray]:
        """Weight (out, into) and bias (out,) of a product."""
        return self.take(f"{name}.weight", out, into), self.take(f"{name}.bias", out)

    def norm(self, name: str, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift (width,) of a layer norm."""
        return self.take(f"{name}.weight", width), self.take(f"{name}.bias", width)

    def check_all_taken(self) -> None:
        """InputError if the file has weights that were not taken: it would be another network."""
        if self._left:
            raise InputError(
                f"{self.path}: {len(self._left)} weights have no place here, {min(self._left)} "
                "among them: this is not MiniMol as it is known here"
            )
