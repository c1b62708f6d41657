"""What every encoder offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pipeline.runtime.errors import InputError


@runtime_checkable
class Encoder(Protocol):
    """A frozen model on one device that gives each molecule one feature vector.

    Attributes
    ----------
    name : the name in `pipeline.encoders.ENCODERS`.
    dim : length of a feature vector.
    takes : the kind of molecules, "smiles" or "sequence"; see `pipeline.molecules.kinds`.
    needs_conformers : whether rows reach it with `atoms` and `coords`; if not, the flow
        makes no conformers.
    takes_given_structures : whether a file's own structures will do; not where it reads the
        graph too, since a file's atoms stand in an order of their own.
    uses_torch : whether it computes with torch, on a GPU if there is one. One that does not works
        on CPU cores, whatever the device, and its workers are spared the import.
    graph : "module:class" of what `prepare` returns, where that takes so long that tasks on all
        cores do it for encoders on GPUs; None where it does not. See `pipeline.encoders.graphs`.
    """

    name: str
    dim: int
    takes: str
    needs_conformers: bool
    takes_given_structures: bool
    uses_torch: bool
    graph: str | None

    @staticmethod
    def identity(**settings: Any) -> dict[str, Any]:
        """What decides the features, JSON-ready; checks settings and weights on the way.

        Features are stored under a hash of it. `weights` holds the label for reports;
        `hydrogens` says whether conformers must keep theirs.
        """
        ...

    @staticmethod
    def core_seconds(weights: str | None) -> float:
        """Roughly how long one CPU core works on an ordinary molecule; inf if nobody knows.

        Conformers left out. Few molecules are encoded where no process must be started for them,
        in several threads at once: `prepare`, `encode_prepared` and `take_token_counts` of one
        encoder must bear that where this is finite.
        """
        ...

    def encode_smiles(self, smiles: Sequence[str]) -> np.ndarray:
        """Features (n, dim) float32, in the order given; InputError if it takes no SMILES."""
        ...

    def prepare(self, row: Mapping[str, Any]) -> Any:
        """One row of the flow as this encoder's input.

        It has `smiles` (of a sequence the letters), and `atoms` and `coords` if the encoder needs
        conformers.

        Raises RowRejected if this encoder cannot take the molecule.
        """
        ...

    def encode_prepared(self, prepared: Sequence[Any]) -> np.ndarray:
        """Features (n, dim) float32 of what `prepare` returned, in order, in any mix of sizes."""
        ...

    def take_token_counts(self) -> tuple[int, int]:
        """Tokens computed, padding included, and padding alone, since this was last asked."""
        ...


class TokenCounts:
    """Tokens that an encoder has computed, and padding among them; threads may share it."""

    def __init__(self):
        self._lock, self._counts = Lock(), (0, 0)

    def add(self, tokens: int, padding: int = 0) -> None:
        """Count some more."""
        with self._lock:
            self._counts = self._counts[0] + tokens, self._counts[1] + padding

    def take(self) -> tuple[int, int]:
        """Both since this was last asked."""
        with self._lock:
            counts, self._counts = self._counts, (0, 0)
        return counts


def refuse_finetuned(name: str, finetuned: str | None) -> None:
    """InputError if --finetuned is given to an encoder that cannot be finetuned."""
    if finetuned is not None:
        raise InputError(f"--finetuned: {name} cannot be finetuned, only unimol")
