"""Whether labels serve to tell errors, and which molecules intervals are calibrated on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.runtime.errors import InputError
from pipeline.training.training_set import LEAST_LABELLED

LEAST = LEAST_LABELLED  # of so many a third calibrates, and folds of 8 are tested
LEAST_OF_CLASS = 10  # molecules with label 0, and with label 1
CALIBRATION, LEAST_CALIBRATION = 1 / 8, 20


def is_binary(labels: np.ndarray) -> bool:
    """Whether all labels are 0 or 1."""
    return bool(np.isin(labels, (0, 1)).all())


def check_finite(name: str, smiles: Sequence[str], values: np.ndarray) -> None:
    """Refuse values that are not one finite number for each molecule.

    Raises
    ------
    InputError
        With the first such molecule.
    """
    values = np.asarray(values, float)
    if values.shape != (len(smiles),):
        raise InputError(f"{name}: {len(values):,} values for {len(smiles):,} molecules")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InputError(
            f"{name}: {len(bad):,} of {len(values):,} values are no finite numbers, the first that "
            f"of {smiles[bad[0]]}; leave these molecules out or mend the values"
        )


def checked_labels(smiles: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Labels (n,) as float64, if errors can be told from them.

    Raises
    ------
    InputError
        If a label is missing or infinite, or labels are too few or all the same.
    """
    labels = np.asarray(labels, float)
    check_finite("label", smiles, labels)
    if len(labels) < LEAST:
        raise InputError(
            f"an error model needs at least {LEAST} labelled molecules, there are {len(labels):,}; "
            "label more, or leave --label_column out"
        )
    if np.ptp(labels) == 0:
        raise InputError(
            f"all {len(labels):,} labels are {labels[0]:g}: there are no errors to tell; does "
            "--label_column name the right column?"
        )
    fewer = min(np.sum(labels == 0), np.sum(labels == 1))
    if is_binary(labels) and fewer < LEAST_OF_CLASS:
        raise InputError(
            f"an error model for 0/1 labels needs at least {LEAST_OF_CLASS} molecules of each, "
            f"there are {fewer:,} of one; label more, or leave --label_column out"
        )
    return labels


def held_out(count: int, seed: int) -> np.ndarray:
    """Rows of a seeded sample of `count` molecules that calibrates intervals."""
    size = max(round(count * CALIBRATION), LEAST_CALIBRATION)
    return np.sort(np.random.default_rng(seed).permutation(count)[:size])
