"""Rows of made-up molecules."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.molecules.identity import molecule_key
from pipeline.store.keyed_table import features_table

SETTINGS = {"encoder": "unimol", "precision": "fp32"}
DIM = 4


def keys_of(*numbers: int) -> list[str]:
    return [molecule_key(str(number)) for number in numbers]


def vectors(*numbers: int, shift: float = 0) -> np.ndarray:
    return np.array([[n + shift, -n, n / 7, 1] for n in numbers], dtype=np.float32)


def rows_of(*numbers: int, shift: float = 0) -> pa.Table:
    return features_table(keys_of(*numbers), vectors(*numbers, shift=shift))
