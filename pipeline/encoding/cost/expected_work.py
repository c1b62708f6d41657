"""What molecules are expected to take, so that the longest begin and the time left is told rightly.

A molecule of 60 atoms takes RDKit five times as long as one of 30: a share of the molecules done
says little of the work that is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.conformers.expected_cost import atom_counts, conformer_seconds
from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.lookup import keys_of
from pipeline.molecules.kinds import SEQUENCE

# Of an encoder on one core, rounded from Uni-Mol's and MiniMol's: only ratios matter. Uni-Mol2's
# is not measured and taken to be the same, so its bars may run ahead of it.
ENCODER_SECONDS_PER_ATOM = 6e-4
# Of ESM-2's, reckoned for its smallest model: attention, which grows with the square of the length,
# takes as long as all else at EQUAL_AT residues.
ENCODER_SECONDS_PER_RESIDUE, EQUAL_AT = 1e-3, 2000


def expected_seconds(molecules: pa.Table, tables: Tables) -> np.ndarray:
    """Seconds of one core for each molecule's conformer, if it takes one, and its features.

    Parameters
    ----------
    molecules : n rows with canonical `smiles`, of which the store has nothing.

    Returns
    -------
    (n,) float64
    """
    return _encoder_seconds(molecules, tables) + (
        0.0 if tables.conformers is None else conformer_seconds(molecules["smiles"])
    )


def _encoder_seconds(molecules: pa.Table, tables: Tables) -> np.ndarray:
    if tables.takes == SEQUENCE.name:
        residues = pc.utf8_length(molecules["smiles"]).to_numpy().astype(float)
        return ENCODER_SECONDS_PER_RESIDUE * residues * (1 + residues / EQUAL_AT)
    return ENCODER_SECONDS_PER_ATOM * atom_counts(molecules["smiles"])[0]


@dataclass(frozen=True)
class ExpectedWork:
    """What each molecule of a run is expected to take.

    Attributes
    ----------
    keys : (n,), rising.
    seconds : (n,) float64, of one core.
    """

    keys: np.ndarray
    seconds: np.ndarray

    @classmethod
    def of(cls, todo: pa.Table, unmade: pa.Table, tables: Tables) -> ExpectedWork:
        """Of molecules in the order of their keys, of which some have no conformer yet."""
        keys, seconds = keys_of(todo), _encoder_seconds(todo, tables)
        seconds[np.searchsorted(keys, keys_of(unmade))] = expected_seconds(unmade, tables)
        return cls(keys, seconds)

    @property
    def total(self) -> float:
        """Of all molecules."""
        return float(self.seconds.sum())

    def of_batch(self, batch: pa.Table) -> float:
        """Of the molecules of a batch together."""
        return float(self.seconds[np.searchsorted(self.keys, keys_of(batch))].sum())
