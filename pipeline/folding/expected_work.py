"""What sequences are expected to take, for tasks of like work and the time that is left."""

from __future__ import annotations

import numpy as np


def expected_work(lengths: np.ndarray) -> np.ndarray:
    """What sequences are expected to take, in no unit: between n² and n³ for n residues."""
    lengths = np.asarray(lengths, np.float64)
    return lengths**2 * (1 + lengths / 512)
