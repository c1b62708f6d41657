"""Who trains, who validates, who calibrates: roles of a training set that comes without splits.

A random part of the training set calibrates p-values and intervals: nothing is fitted or chosen
by it, so it is exchangeable with new molecules of its kind. Validation is cut from the rest, and
from the OOD molecules, by whole clusters of similar molecules.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.encoding.kinds import kind_of_views
from pipeline.molecules.splitting.clusters import at_most
from pipeline.runtime.errors import InputError
from pipeline.training.settings import TrainSettings

CALIBRATION_SHARE, CALIBRATION_MOST = 0.2, 1000
VALIDATION_SHARE = 0.2
CLUSTERS, LEAST_CLUSTERS, LEAST_A_CLUSTER = 30, 4, 5
FOLDS = 2  # of --ood library: each scores the molecules that the other was trained with


def with_id_roles(molecules: pa.Table, settings: TrainSettings) -> pa.Table:
    """ID molecules with `role` (id_train, id_val, id_cal), `domain` and `fold` (−1)."""
    rng = np.random.default_rng([settings.data_seed, molecules.num_rows])
    count = min(CALIBRATION_MOST, round(CALIBRATION_SHARE * molecules.num_rows))
    roles = np.full(molecules.num_rows, "id_train", dtype=object)
    roles[rng.choice(molecules.num_rows, count, replace=False)] = "id_cal"
    rest = np.flatnonzero(roles == "id_train")
    clusters = _clusters(molecules.take(rest), settings, f"--id_file {settings.id_file}")
    roles[rest[_validating(clusters, rng)]] = "id_val"
    domains = np.array(molecules["domain"].to_pylist(), dtype=object)
    if settings.domain_column is None:
        domains[rest] = [f"cluster {cluster}" for cluster in clusters]
    return _with_columns(molecules, roles, domains, np.full(len(roles), -1))


def with_ood_roles(molecules: pa.Table, settings: TrainSettings, ood: str) -> pa.Table:
    """OOD molecules with `role` (ood_train, ood_val), `domain` (the cluster) and `fold`."""
    rng = np.random.default_rng([settings.data_seed, molecules.num_rows, 1])
    clusters = _clusters(molecules, settings, f"--ood {ood}")
    folds = np.zeros(molecules.num_rows, dtype=int)
    if ood == "library":  # by whole clusters, so that a fold's molecules are new to the other
        folds = _dealt(clusters, rng)
    roles = np.full(molecules.num_rows, "ood_train", dtype=object)
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        roles[rows[_validating(clusters[rows], rng)]] = "ood_val"
    domains = np.array([f"cluster {cluster}" for cluster in clusters], dtype=object)
    return _with_columns(molecules, roles, domains, folds)


def _dealt(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each molecule's fold (n,): clusters by size, dealt there and back, so folds are alike."""
    sizes = np.bincount(clusters)
    there = rng.permutation(FOLDS)
    there_and_back = np.concatenate([there, there[::-1]])
    fold_of = np.empty(len(sizes), int)
    fold_of[np.argsort(-sizes, kind="stable")] = np.resize(there_and_back, len(sizes))
    return fold_of[clusters]


def _clusters(molecules: pa.Table, settings: TrainSettings, whose: str) -> np.ndarray:
    """Each molecule's cluster of similar ones: (n,). InputError if nearly all are alike."""
    count = max(LEAST_CLUSTERS, min(CLUSTERS, molecules.num_rows // LEAST_A_CLUSTER))
    kind = kind_of_views(settings.view_names)
    found = at_most(molecules["smiles"].to_pylist(), count, settings.data_seed, kind)
    if found.max() + 1 < LEAST_CLUSTERS:
        raise InputError(
            f"{whose}: {molecules.num_rows:,} molecules have {found.max() + 1} different "
            f"fingerprints, too few to validate on molecules unlike those trained on; give at "
            f"least {LEAST_CLUSTERS} kinds"
        )
    return found


def _validating(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether each molecule validates: whole clusters, a fifth of all; at least one, never all."""
    names, sizes = np.unique(clusters, return_counts=True)
    order = rng.permutation(len(names))
    chosen, taken = [], 0
    for place in order:
        if taken + sizes[place] <= VALIDATION_SHARE * len(clusters):
            chosen.append(names[place])
            taken += sizes[place]
    return np.isin(clusters, chosen or [names[np.argmin(sizes)]])


def _with_columns(
    molecules: pa.Table, roles: np.ndarray, domains: np.ndarray, folds: np.ndarray
) -> pa.Table:
    place = molecules.column_names.index("domain")
    molecules = molecules.set_column(place, "domain", pa.array(domains.tolist(), pa.string()))
    molecules = molecules.append_column("role", pa.array(roles.tolist(), pa.string()))
    return molecules.append_column("fold", pa.array(folds, pa.int64()))
