"""Features as the generator learns them: standardised, or whitened principal components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.detectors.feature_space import Standard

CONSTANT = 1e-6  # a deviation below this share of a column's largest magnitude is rounding
# With fewer, standardised rows lie in a plane. With more, whitening does harm: of 864 rows of 512
# columns a generator of components learned nothing, one of the columns as they are did.
ROWS_A_COLUMN = 1
LEAST_VARIANCE = 1e-6  # of a component, as a share of the first's: less is rounding
EXPLAINED = 0.99  # share of the variance that the components keep


@dataclass(frozen=True)
class Scaling:
    """An invertible map, but for what whitening leaves out.

    Attributes
    ----------
    standard : mean and deviation of the training rows; see `own_standard`.
    components : (k, d) of the standardised rows, each over its deviation; None: not whitened.
    inverse : (k, d) back to standardised rows.
    explained : share of the standardised training rows' variance that is kept.
    """

    standard: Standard
    components: np.ndarray | None = None
    inverse: np.ndarray | None = None
    explained: float = 1.0

    @classmethod
    def fit(cls, features: np.ndarray, whiten: str) -> Scaling:
        """Of training rows (n, d).

        Parameters
        ----------
        whiten : "on", "off" or "auto", see `GeneratorSettings.whiten`.
        """
        rows, columns = features.shape
        standard = own_standard(features)
        if whiten == "off" or (whiten == "auto" and rows >= ROWS_A_COLUMN * columns):
            return cls(standard)
        z = standard(features).astype(np.float64)
        variances, vectors = np.linalg.eigh(z.T @ z / rows)
        variances, vectors = variances[::-1].clip(min=0), vectors[:, ::-1]
        shares = np.cumsum(variances) / variances.sum()
        most = int((variances > LEAST_VARIANCE * variances[0]).sum())
        k = min(most, int(np.searchsorted(shares, EXPLAINED)) + 1)
        kept, deviation = vectors[:, :k].T, np.sqrt(variances[:k, None])
        return cls(standard, kept / deviation, kept * deviation, float(shares[k - 1]))

    @property
    def width(self) -> int:
        """Columns that the generator learns."""
        return len(self.standard.mean if self.components is None else self.components)

    def inward(self, features: np.ndarray) -> np.ndarray:
        """Rows (n, d) as the generator learns them: (n, width) float32."""
        z = self.standard(features)
        return z if self.components is None else (z @ self.components.T).astype(np.float32)

    def outward(self, made: np.ndarray) -> np.ndarray:
        """What `inward` made of rows (n, d), as features again: float32."""
        z = made if self.inverse is None else made @ self.inverse
        return (z * self.standard.scale + self.standard.mean).astype(np.float32)

    def kept(self, features: np.ndarray) -> np.ndarray:
        """Rows (n, d) standardised, without what whitening leaves out: as samples have them."""
        return self.standard(self.outward(self.inward(features)))

    def kept_share(self, features: np.ndarray) -> float:
        """Share of the standardised rows' squares that `kept` keeps."""
        z = self.standard(features).astype(np.float64)
        return float(1 - np.square(z - self.kept(features)).sum() / np.square(z).sum())

    def save(self) -> dict[str, np.ndarray]:
        """Name → array."""
        arrays = self.standard._asdict()
        if self.components is not None:
            arrays |= {"components": self.components, "inverse": self.inverse}
        return {**arrays, "explained": np.array([self.explained])}

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray]) -> Scaling:
        """Of what `save` gave."""
        return cls(
            Standard(arrays["mean"], arrays["scale"]), arrays.get("components"),
            arrays.get("inverse"), float(arrays["explained"][0]),
        )  # fmt: skip


def own_standard(features: np.ndarray) -> Standard:
    """Means and deviations of columns (n, d) of any units.

    A column that is constant gets the floor that views have (see `Standard.of`), so that a new row
    which differs there is not millions of deviations away.
    """
    floored = Standard.of(features)
    x = features.astype(np.float64)
    deviation = x.std(axis=0)
    varies = deviation > CONSTANT * np.abs(x).max(axis=0)
    return Standard(floored.mean, np.where(varies, deviation, floored.scale).astype(np.float32))
