"""Molecules made of random numbers."""

from __future__ import annotations

import numpy as np

from pipeline.detectors.base import Inputs
from pipeline.detectors.settings import DetectorSettings

BLOCKS = {"minimol": slice(0, 5), "ecfp": slice(5, 9), "descriptors": slice(9, 12)}
WIDTH = 12


def made(n: int, seed: int, *, shift: float = 0.0, own: bool = False) -> Inputs:
    """n molecules; with `own` they are the ID training molecules."""
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(n, WIDTH)) * np.linspace(0.5, 2, WIDTH) + shift).astype(np.float32)
    scaffold = np.random.default_rng(int(shift != 0)).random(2048) < 0.02
    bits = np.packbits((rng.random((n, 2048)) < 0.01) | scaffold, axis=1)
    rows = np.arange(n) if own else np.full(n, -1)
    return Inputs(features, bits, rows, dict(BLOCKS))


def taken(inputs: Inputs, rows: np.ndarray | slice, *, new: bool = False) -> Inputs:
    """Some of the molecules; with `new` as if they were none of the training set."""
    own = inputs.own[rows]
    own = np.full(len(own), -1) if new else own
    return Inputs(inputs.features[rows].copy(), inputs.bits[rows].copy(), own, inputs.blocks)


def joined(*parts: Inputs) -> Inputs:
    """Molecules one after the other."""
    arrays = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("features", "bits", "own")
    )
    return Inputs(*arrays, parts[0].blocks)


def with_features(inputs: Inputs, features: np.ndarray) -> Inputs:
    """The same molecules with other features."""
    blocks = {"minimol": slice(0, features.shape[1])}
    return Inputs(features.astype(np.float32), inputs.bits, inputs.own, blocks)


def binary_labels(inputs: Inputs) -> np.ndarray:
    return (inputs.features[:, 0] + inputs.features[:, 10] > 0).astype(float)


def value_labels(inputs: Inputs) -> np.ndarray:
    x = inputs.features.astype(np.float64)
    return 6 + 1.5 * x[:, 0] - x[:, 3] ** 2


def settings(**changes) -> DetectorSettings:
    return DetectorSettings(**changes)
