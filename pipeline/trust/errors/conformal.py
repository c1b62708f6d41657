"""Split conformal intervals: y in prediction ∓ q · scale for a share 1 − α of like molecules.

Lei et al., Journal of the American Statistical Association 113, 1094 (2018), with locally weighted
residuals. The promise holds for molecules that are exchangeable with those of the calibration.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.runtime.errors import InputError


def least_molecules(alpha: float) -> int:
    """The fewest calibration molecules from which an interval of level α is finite."""
    return math.ceil(round(1 / alpha, 9)) - 1


def quantile(residuals: np.ndarray, alpha: float) -> float:
    """The ⌈(n + 1)(1 − α)⌉-th smallest of n normalised residuals |y − prediction| / scale.

    Raises
    ------
    InputError
        If there are too few residuals for that.
    """
    if not 0 < alpha < 1:
        raise InputError(f"--interval_alpha must be between 0 and 1, got {alpha:g}")
    # rounded: (9 + 1)(1 − 0.1) is a little more than 9
    place = math.ceil(round((len(residuals) + 1) * (1 - alpha), 9))
    if place > len(residuals):
        raise InputError(
            f"intervals at --interval_alpha {alpha:g} need at least {least_molecules(alpha):,} "
            f"calibration molecules with labels, there are {len(residuals):,}; raise "
            "--interval_alpha or label more molecules"
        )
    return float(np.partition(residuals, place - 1)[place - 1])


def interval(
    prediction: np.ndarray, scale: np.ndarray, q: float, *, binary: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds (n,); of 0/1 labels they are kept between 0 and 1."""
    lower, upper = prediction - q * scale, prediction + q * scale
    return (lower.clip(0, 1), upper.clip(0, 1)) if binary else (lower, upper)
