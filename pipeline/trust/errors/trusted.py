"""What an error model says of molecules."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Trusted(NamedTuple):
    """Of n molecules, float64 (n,) each and in the labels' unit.

    Attributes
    ----------
    prediction : the property model's, or the user's own.
    expected_error : the expected absolute error; higher: trust it less.
    scale : the interval at any level α is prediction ∓ q(α) · scale.
    """

    prediction: np.ndarray
    expected_error: np.ndarray
    scale: np.ndarray
