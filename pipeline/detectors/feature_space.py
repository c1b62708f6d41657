"""What detectors see of molecules: the chosen views side by side, standardised.

All constants are fitted on ID training molecules and kept in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import NamedTuple

import numpy as np

from pipeline.detectors.base import Inputs
from pipeline.detectors.distance.distances import TrainingDistances
from pipeline.detectors.kept import array_bytes, member, read_arrays
from pipeline.molecules.features.fingerprints import packed_fingerprints
from pipeline.molecules.kinds import SMILES, Kind

FILE, OF_DISTANCES = "feature_space.safetensors", "feature_space_"  # the latter: of file names
DISTANCES, ECFP = "distances", "ecfp"  # views that are not an encoder's features as they are
COMPONENTS = 50  # of ECFP4, whose 2048 bits would outweigh every other view
# Least deviation that a column is divided by: one that hardly varies in training must not turn
# rounding, or a rare value, into millions. As a share of the column's largest magnitude there (or
# of 1), and of the median deviation of its view's columns, which are of one kind.
LEAST_DEVIATION, LEAST_OF_MEDIAN = 1e-3, 0.1


@dataclass
class Described:
    """Molecules as a `FeatureSpace` takes them.

    Attributes
    ----------
    blocks : by view that an encoder makes, its features (n, width).
    smiles : n canonical SMILES, or sequences if those are the `kind`.
    own : (n,) row of each molecule among the ID training molecules, −1 for others; None: all −1.
    prints : packed fingerprints (n, w) uint8, where somebody has made them.
    kind : of the molecules.
    """

    blocks: Mapping[str, np.ndarray]
    smiles: Sequence[str]
    own: np.ndarray | None = None
    prints: np.ndarray | None = None
    kind: Kind = SMILES

    @cached_property
    def bits(self) -> np.ndarray:
        """Packed fingerprints (n, w) uint8: ECFP4, w 256; of sequences k-mers, w 1053."""
        if self.prints is not None:
            return self.prints
        return packed_fingerprints(self.smiles, self.kind)

    @cached_property
    def rows(self) -> np.ndarray:
        """`own`, never None."""
        return np.full(len(self.smiles), -1) if self.own is None else self.own

    def take(self, chosen: np.ndarray) -> Described:
        """Those of a mask (n,)."""
        blocks = {view: block[chosen] for view, block in self.blocks.items()}
        prints = None if self.prints is None else self.prints[chosen]
        smiles = list(compress(self.smiles, chosen))
        return Described(blocks, smiles, self.rows[chosen], prints, self.kind)


class Standard(NamedTuple):
    """Mean and deviation (width,) float32 of a view's columns on ID training molecules."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray) -> Standard:
        """Of a view's columns (n, width); no deviation is below its floor, see LEAST_DEVIATION."""
        columns = columns.astype(np.float64)
        deviation = columns.std(axis=0)
        floor = LEAST_DEVIATION * np.maximum(1.0, np.abs(columns).max(axis=0))
        scale = np.maximum.reduce(
            [deviation, floor, np.full_like(floor, LEAST_OF_MEDIAN * np.median(deviation))]
        )
        return cls(columns.mean(axis=0).astype(np.float32), scale.astype(np.float32))

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """Columns (n, width) less the mean, over the deviation: float32."""
        return ((columns - self.mean) / self.scale).astype(np.float32)


@dataclass(frozen=True)
class FeatureSpace:
    """The views side by side; see the module.

    Attributes
    ----------
    views : names, in order.
    standards : by view.
    components : (k, 2048) principal components that the view ecfp is projected on after `centre`
        (2048,) is subtracted; None without that view.
    distances : to ID training molecules; None without that view.
    """

    views: tuple[str, ...]
    standards: Mapping[str, Standard]
    components: np.ndarray | None = None
    centre: np.ndarray | None = None
    distances: TrainingDistances | None = None

    @classmethod
    def fit(cls, views: Sequence[str], training: Described, seed: int) -> FeatureSpace:
        """Fit all constants on ID training molecules.

        Parameters
        ----------
        training : row i of the ID training molecules is its molecule i, whatever its `own`.
        seed : of the components, and of the molecules that distances are taken to.
        """
        training = replace(training, own=np.arange(len(training.smiles)))
        space = cls(tuple(view for view in views if view != DISTANCES), {})
        if ECFP in views:
            components, centre = _principal(training.blocks[ECFP], seed)
            space = replace(space, components=components, centre=centre)
        space = replace(
            space, standards={v: Standard.of(space._columns(v, training)) for v in space.views}
        )
        if DISTANCES not in views:
            return space
        inputs = space.inputs(training)
        distances = TrainingDistances.fit(inputs, seed)
        standards = {**space.standards, DISTANCES: Standard.of(distances.of(inputs))}
        return replace(space, views=tuple(views), standards=standards, distances=distances)

    @property
    def plain(self) -> Standard | None:
        """The standard of the one view whose columns are an encoder's as they are, if that is all.

        Then a model can standardise the encoder's features itself.
        """
        if len(self.views) > 1 or self.views[0] == ECFP:
            return None
        return self.standards[self.views[0]]

    def inputs(self, molecules: Described) -> Inputs:
        """The views of n molecules, standardised, side by side in the order of `views`."""
        made = {v: self.standards[v](self._columns(v, molecules)) for v in self._encoders}
        inputs = _side_by_side(made, molecules)
        if self.distances is None:
            return inputs
        made[DISTANCES] = self.standards[DISTANCES](self.distances.of(inputs))
        return _side_by_side({view: made[view] for view in self.views}, molecules)

    @property
    def _encoders(self) -> tuple[str, ...]:
        return tuple(view for view in self.views if view != DISTANCES)

    def _columns(self, view: str, molecules: Described) -> np.ndarray:
        features = molecules.blocks[view]
        if view != ECFP:
            return features
        return (features - self.centre) @ self.components.T

    def save(self) -> dict[str, bytes]:
        """Files of a checkpoint: their names and contents."""
        arrays = {
            f"{view}.{name}": array
            for view, standard in self.standards.items()
            for name, array in standard._asdict().items()
        }
        if self.components is not None:
            arrays |= {"components": self.components, "centre": self.centre}
        files = {FILE: array_bytes(arrays)}
        if self.distances is not None:
            kept = self.distances.save().items()
            files |= {f"{OF_DISTANCES}{name}": content for name, content in kept}
        return files

    @classmethod
    def load(cls, views: Sequence[str], files: Mapping[str, bytes]) -> FeatureSpace:
        """What `save` made files of, for the views that the checkpoint names."""
        arrays = read_arrays(member(files, FILE))
        standards = {
            view: Standard(arrays[f"{view}.mean"], arrays[f"{view}.scale"]) for view in views
        }
        distances = None
        if DISTANCES in views:
            kept = {name.removeprefix(OF_DISTANCES): content for name, content in files.items()
                    if name.startswith(OF_DISTANCES)}  # fmt: skip
            distances = TrainingDistances.load(kept)
        return cls(
            tuple(views), standards, arrays.get("components"), arrays.get("centre"), distances
        )

    @classmethod
    def unchanged(cls, view: str) -> FeatureSpace:
        """One encoder's features as they are: what checkpoints of earlier versions took."""
        return cls((view,), {view: Standard(np.zeros(1, np.float32), np.ones(1, np.float32))})


def _side_by_side(views: Mapping[str, np.ndarray], molecules: Described) -> Inputs:
    ends = np.cumsum([0, *(columns.shape[1] for columns in views.values())])
    blocks = {view: slice(*pair) for view, pair in zip(views, zip(ends, ends[1:]))}
    features = np.concatenate(list(views.values()), axis=1)
    return Inputs(features, molecules.bits, molecules.rows, blocks)


def _principal(bits: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components (k, 2048) of fingerprints, and their mean (2048,): float32."""
    from sklearn.decomposition import PCA  # slow to import
    from threadpoolctl import threadpool_limits

    count = min(COMPONENTS, len(bits) - 1)
    with threadpool_limits(1):  # sums of several threads depend on their number
        found = PCA(count, svd_solver="randomized", random_state=seed % 2**32).fit(bits)
    return found.components_.astype(np.float32), found.mean_.astype(np.float32)
