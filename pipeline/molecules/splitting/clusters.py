"""Clusters of similar molecules: k-means of the main components of their fingerprints.

Of sequences: by identity, where MMseqs2 is there.
"""

from __future__ import annotations

import numpy as np

from pipeline.molecules.features.fingerprints import fingerprints
from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting import mmseqs
from pipeline.runtime.errors import InputError

COMPONENTS = 50
STARTS = 10  # of k-means, of which the best counts


def clusters_of(
    smiles: list[str], settings: SplitSettings, kind: Kind = SMILES
) -> tuple[np.ndarray, str]:
    """The number of each molecule's cluster, int (n,), and what the clusters are, in words.

    All is computed in one thread: sums of several threads depend on how many there are, and those
    of k-means on which ends first.

    Raises
    ------
    InputError
        If there are fewer different fingerprints than clusters; as `mmseqs.identity_clusters`.
    """
    if _by_identity(settings, kind):
        found = mmseqs.identity_clusters(smiles, settings.identity, settings.coverage)
        told = (
            f"sequences (MMseqs2, identity {settings.identity:g}, coverage {settings.coverage:g})"
        )
        return found, told
    prints = fingerprints(smiles, kind)
    first = _first_of_each(prints)
    different = len(np.unique(first))
    if different < settings.clusters:
        raise InputError(
            f"{settings.data_file}: {len(smiles):,} molecules with {different:,} different "
            f"fingerprints are too few for {settings.clusters:,} clusters; lower --clusters"
        )
    return grouped(prints, settings.clusters, settings.seed)[first], kind.fingerprint


def _by_identity(settings: SplitSettings, kind: Kind) -> bool:
    asked = settings.cluster_method
    if kind != SEQUENCE:
        if asked == "mmseqs2":
            raise InputError("--cluster_method mmseqs2 is for sequences; leave it out for SMILES")
        return False
    return asked == "mmseqs2" or (asked == "auto" and mmseqs.is_there())


def at_most(smiles: list[str], clusters: int, seed: int, kind: Kind = SMILES) -> np.ndarray:
    """K-means clusters: as many as asked for, or as molecules have different fingerprints."""
    prints = fingerprints(smiles, kind)
    first = _first_of_each(prints)
    return grouped(prints, min(clusters, len(np.unique(first))), seed)[first]


def grouped(prints: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """K-means of the main components of fingerprints: the number of each one's cluster, int (n,).

    Parameters
    ----------
    prints : 0 and 1, uint8 (n, bits); at least as many different ones as clusters.
    """
    from sklearn.cluster import KMeans  # takes seconds; most who import this group nothing
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    seed %= 2**32  # scikit-learn takes no larger one
    with threadpool_limits(1):
        components = PCA(
            min(COMPONENTS, len(prints) - 1), svd_solver="randomized", random_state=seed, copy=False
        ).fit_transform(prints.astype(np.float32))
        return KMeans(clusters, n_init=STARTS, random_state=seed).fit(components).labels_


def _first_of_each(prints: np.ndarray) -> np.ndarray:
    """The first row that has the same fingerprint, int (n,).

    Molecules of one fingerprint share a cluster then, however their components are rounded.
    """
    first: dict[bytes, int] = {}
    rows = [first.setdefault(row.tobytes(), place) for place, row in enumerate(prints)]
    return np.array(rows, dtype=int)
