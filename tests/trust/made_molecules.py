"""Molecules that are made up: fingerprints of a few families, and labels that follow the bits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class MadeUp(NamedTuple):
    smiles: list[str]
    bits: np.ndarray
    labels: np.ndarray
    views: dict[str, np.ndarray]
    descriptors: np.ndarray


def made_up(count: int, seed: int = 0, families: int = 6) -> MadeUp:
    """Labels of odd families are noisy: that is what an error model can learn."""
    rng = np.random.default_rng(seed)
    family = rng.integers(families, size=count)
    cores = np.random.default_rng(99).random((families, 2048)) < 0.02
    bits = cores[family] ^ (rng.random((count, 2048)) < 0.004)
    weights = np.random.default_rng(98).normal(size=2048) / 3
    noise = np.where(family % 2 == 1, 1.5, 0.05)
    labels = bits @ weights + noise * rng.normal(size=count)
    view = (bits[:, :400] @ np.random.default_rng(97).normal(size=(400, 8)) / 3).astype(np.float32)
    return MadeUp(
        [f"molecule {row}" for row in range(count)],
        np.packbits(bits, axis=1),
        labels,
        {"minimol": view},
        np.repeat(bits.sum(axis=1)[:, None], 13, axis=1).astype(float),
    )


def bits_of(made: MadeUp) -> np.ndarray:
    return np.unpackbits(made.bits, axis=1).astype(float)
