"""Which training rows a generator does not learn from: whole groups, some rows of each class."""

from __future__ import annotations

import numpy as np

from pipeline.augmentation.table import Part
from pipeline.runtime.errors import InputError

LEAST = 2  # rows of each class on either side
MOST = 0.5  # share of a class's rows that is held out at most


def held_out(train: Part, share: float, seed: int) -> np.ndarray:
    """Whole groups in seeded order, until each class has that share of its rows held out.

    A group that would take more than half of a class is left to training.

    Returns
    -------
    numpy.ndarray
        Bool (n,) of the training rows.

    Raises
    ------
    InputError
        If the groups are too large for some rows of each class to be on either side.
    """
    names, groups = np.unique(train.groups, return_inverse=True)
    sizes = np.stack([np.bincount(groups[train.is_rare == rare], minlength=len(names))
                      for rare in (True, False)])  # fmt: skip
    total, taken = sizes.sum(axis=1), np.zeros(2)
    chosen = np.zeros(len(names), bool)
    order = np.random.default_rng([seed, len(names)]).permutation(len(names))
    for of in range(2):  # the rare class first: its groups bring rows of the other
        for group in order:
            if taken[of] >= share * total[of]:
                break
            fits = (taken + sizes[:, group] <= MOST * total).all()
            if sizes[of, group] and fits and not chosen[group]:
                chosen[group] = True
                taken += sizes[:, group]
    if (taken < LEAST).any() or (total - taken < LEAST).any():
        raise InputError(
            f"the training rows are in {len(names):,} groups, too few or too uneven to hold some "
            "of each class out from the generator; name a finer --group_column, or leave generated "
            "and generated_ungated out of --methods"
        )
    return chosen[groups]
