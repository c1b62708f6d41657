"""The ID training molecules that distances are taken to, and that detectors are fitted on."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.detectors.feature_space import Described
from pipeline.encoding.kinds import kind_of_views
from pipeline.encoding.views import EncodedViews

log = logging.getLogger(__name__)

MOST = 20_000  # energy heads are trained on all


def reference_molecules(molecules: pa.Table, seed: int) -> pa.Table:
    """The ID training molecules among some, or MOST of them drawn at random, in order.

    Parameters
    ----------
    molecules : with `role`.
    seed : --data_seed, of the training run.
    """
    training = molecules.filter(pc.equal(molecules["role"], "id_train"))
    if training.num_rows <= MOST:
        return training
    log.info(
        "detectors are fitted on, and distances taken to, %s of %s ID training molecules, drawn at "
        "random", f"{MOST:,}", f"{training.num_rows:,}",
    )  # fmt: skip
    rng = np.random.default_rng([seed, training.num_rows])
    return training.take(np.sort(rng.choice(training.num_rows, MOST, replace=False)))


class References:
    """Which molecules are reference molecules.

    Parameters
    ----------
    molecules, seed : as `reference_molecules`.
    """

    def __init__(self, molecules: pa.Table, seed: int):
        self.molecules = reference_molecules(molecules, seed)
        self._row = {k: row for row, k in enumerate(self.molecules["key"].to_pylist())}

    def rows(self, keys: list[str]) -> np.ndarray:
        """The row (n,) of each molecule among the references; −1 if it is none."""
        return np.array([self._row.get(key, -1) for key in keys], dtype=np.int64)

    def described(self, molecules: pa.Table, encoded: EncodedViews) -> Described:
        """Molecules (`key`, `smiles`) that were encoded, as a feature space takes them."""
        keys = molecules["key"].to_pylist()
        return Described(
            encoded.blocks(keys), molecules["smiles"].to_pylist(), self.rows(keys),
            kind=kind_of_views(encoded.results),
        )  # fmt: skip
