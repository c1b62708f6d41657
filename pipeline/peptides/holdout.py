"""Which peptides are held out: whole clusters, so that none is much like one that is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.runtime.errors import InputError

LEAST = 20  # held-out, and three times as many training peptides, that a class needs


class Cut(NamedTuple):
    """Places of the peptides to train on and of the held-out ones, ascending."""

    train: np.ndarray
    held_out: np.ndarray


def cut(
    classes: np.ndarray, clusters: np.ndarray, names: Sequence[str], share: float, seed: int
) -> Cut:
    """Hold out clusters in a seeded order while every class of theirs has room for them.

    Parameters
    ----------
    classes, clusters : (n,) numbers.
    share : of each class, at most.

    Raises
    ------
    InputError
        If a class has too few peptides, or too few of them can be held out.
    """
    sizes = np.bincount(classes, minlength=len(names))
    counts = np.zeros((clusters.max() + 1, len(names)), np.int64)
    np.add.at(counts, (clusters, classes), 1)
    wanted = np.maximum(LEAST, np.round(share * sizes).astype(int))
    _check_sizes(sizes, names)
    held = np.zeros(len(counts), bool)
    found = np.zeros(len(names), np.int64)
    for cluster in np.random.default_rng([seed, len(counts)]).permutation(len(counts)):
        if (found + counts[cluster] <= wanted).all():
            held[cluster] = True
            found += counts[cluster]
    few = np.flatnonzero(found < LEAST)
    if len(few):
        raise InputError(
            f"class {names[few[0]]!r}: only {found[few[0]]} of its {sizes[few[0]]} peptides lie in "
            f"clusters that are small enough to be held out, {LEAST} are needed; raise "
            "--holdout_identity, so that clusters are smaller"
        )
    out = held[clusters]
    return Cut(np.flatnonzero(~out), np.flatnonzero(out))


def _check_sizes(sizes: np.ndarray, names: Sequence[str]) -> None:
    for name, size in zip(names, sizes):
        if size < 4 * LEAST:
            raise InputError(
                f"class {name!r} has {size} different peptides, too few to learn from and to hold "
                f"{LEAST} out: {4 * LEAST} are needed"
            )
