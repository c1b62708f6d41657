"""Molecules as the models of this room take them: fingerprints, views, descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

# Views that say what fingerprints say already, or that depend on who else is in training.
NOT_ENCODED = ("ecfp", "descriptors", "distances")
FARTHEST = 10.0  # deviations from the mean, beyond which a standardised feature says no more


@dataclass(frozen=True)
class Described:
    """What is known of n molecules.

    Attributes
    ----------
    bits : packed fingerprints, uint8 (n, w): ECFP4, or of sequences k-mers.
    views : standardised features by view, float32 (n, width) each.
    descriptors : of `pipeline.molecules.features.descriptors.descriptor_values`, float64 (n, 13);
        of sequences (n, 26).
    """

    bits: np.ndarray
    views: Mapping[str, np.ndarray] = field(default_factory=dict)
    descriptors: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.bits)

    def take(self, rows: np.ndarray) -> Described:
        """Some of the molecules, in the order of the rows."""
        return Described(
            self.bits[rows],
            {name: features[rows] for name, features in self.views.items()},
            None if self.descriptors is None else self.descriptors[rows],
        )

    def encoded(self) -> dict[str, np.ndarray]:
        """The views that encoders made, clipped to `FARTHEST` deviations, in the order of names."""
        return {
            name: np.clip(self.views[name], -FARTHEST, FARTHEST).astype(np.float32)
            for name in sorted(self.views)
            if name not in NOT_ENCODED
        }

    def features(self) -> np.ndarray:
        """All encoded views side by side, float32 (n, width); width 0 without any."""
        return np.concatenate(
            [np.empty((len(self), 0), np.float32), *self.encoded().values()], axis=1
        )
