"""How well energies tell OOD from ID: metrics, their uncertainty, and each prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.runtime import telemetry

METRICS = ("auroc", "aupr", "fpr95")
Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of the numbers of ID and OOD rows
_RESAMPLES_AT_ONCE = 50  # row numbers of all resamples of a large test set would take gigabytes


def ood_metrics(labels: np.ndarray, energies: np.ndarray) -> dict[str, float]:
    """AUROC, AUPR and FPR at 95 % TPR, with OOD (label 1) as the positive class.

    Parameters
    ----------
    labels : (n,) of 0 (ID) and 1 (OOD), both present.
    energies : (n,), higher means more OOD.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve  # slow to import

    fpr, tpr, _ = roc_curve(labels, energies, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(labels, energies)),
        "aupr": float(average_precision_score(labels, energies)),
        "fpr95": float(fpr[np.searchsorted(tpr, 0.95, side="left")]),
    }


def metrics_both_ways(labels: np.ndarray, energies: np.ndarray) -> dict[str, float]:
    """As `ood_metrics`, and with ID as the positive class `aupr_id_positive`, `fpr95_id_positive`.

    Papers differ in which class is the positive one: AUROC is the same, the others are not.
    """
    other = ood_metrics(1 - np.asarray(labels), -np.asarray(energies))
    both = {f"{name}_id_positive": other[name] for name in ("aupr", "fpr95")}
    return {**ood_metrics(labels, energies), **both}


def bootstrap_intervals(
    labels: np.ndarray, energies: np.ndarray, *, samples: int = 1000, seed: int = 42
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the metrics, ID and OOD molecules resampled apart.

    Parameters
    ----------
    labels, energies : as `ood_metrics`.
    samples : number of resamples.
    """
    interval = paired_interval(labels == 1, metrics_of(energies), samples=samples, seed=seed)
    return {
        name: (float(low), float(high))
        for name, low, high in zip(METRICS, interval.low, interval.high)
    }


def metrics_of(energies: np.ndarray) -> Statistic:
    """A function of ID rows and OOD rows: the METRICS (3,) of these molecules, as `ood_metrics`.

    For resamples: only the order of energies counts, and a resample's order follows from that of
    all by counting, without a sort. scikit-learn's functions check their inputs anew each time,
    which takes longer than the counting.

    Parameters
    ----------
    energies : (n,), higher means more OOD; rows are places in it.
    """
    places = places_of(-energies)  # the highest energy first
    size = int(places.max()) + 1

    def metrics(id_rows: np.ndarray, ood_rows: np.ndarray) -> np.ndarray:
        here_id, here_ood = (
            np.bincount(places[rows], minlength=size) for rows in (id_rows, ood_rows)
        )
        false, true = np.cumsum(here_id), np.cumsum(here_ood)  # called OOD down to each energy
        negatives, positives = false[-1], true[-1]
        beaten = negatives - false + here_id / 2  # ID molecules below each; ties count one half
        precision = true / np.maximum(true + false, 1)
        reached = np.searchsorted(true / positives, 0.95, side="left")
        return np.array(
            [
                here_ood @ beaten / (negatives * positives),
                here_ood @ precision / positives,
                false[reached] / negatives,
            ]
        )

    return metrics


def auroc(is_ood: np.ndarray, scores: np.ndarray) -> float:
    """AUROC of (n,) scores, higher meaning OOD; both kinds must be present."""
    from sklearn.metrics import roc_auc_score  # slow to import

    return float(roc_auc_score(is_ood, scores))


def compare_aurocs(
    is_ood: np.ndarray,
    energies: np.ndarray,
    rivals: Mapping[str, np.ndarray],
    *,
    samples: int = 1000,
    seed: int = 42,
) -> dict[str, dict[str, Any]]:
    """AUROC of rivals of a model and its lead over each, with 95 % intervals over molecules.

    A resample is the same molecules for all of them, so the lead's interval is a paired one.

    Parameters
    ----------
    is_ood : (n,) bool, both kinds present.
    energies, rivals : (n,) each, higher meaning OOD.
    samples : number of resamples; ID and OOD molecules are resampled apart.

    Returns
    -------
    dict
        By rival: `auroc`, `auroc_ci95`, `lead` (the model's AUROC minus this), `lead_ci95`.
    """
    places = [places_of(scores) for scores in (energies, *rivals.values())]

    def statistic(id_rows: np.ndarray, ood_rows: np.ndarray) -> np.ndarray:
        model, *areas = (resampled_auroc(place[id_rows], place[ood_rows]) for place in places)
        return np.array([*areas, *(model - area for area in areas)])

    interval = paired_interval(is_ood, statistic, samples=samples, seed=seed)
    found = statistic(np.flatnonzero(~is_ood), np.flatnonzero(is_ood))
    areas, leads = np.stack([found, interval.low, interval.high]).T.reshape(2, len(rivals), 3)
    return {
        name: {
            "auroc": float(area[0]),
            "auroc_ci95": area[1:].tolist(),
            "lead": float(lead[0]),
            "lead_ci95": lead[1:].tolist(),
        }
        for name, area, lead in zip(rivals, areas, leads)
    }


def paired_interval(
    is_ood: np.ndarray,
    statistic: Statistic,
    *,
    samples: int,
    seed: int,
) -> Any:
    """95 % percentile interval, `low` and `high`, of what depends on a test set's rows.

    What is resampled are row numbers, so that all that the statistic looks at are the same
    molecules. scipy's `paired` would do that too, but it cannot resample ID and OOD molecules
    apart.

    Parameters
    ----------
    statistic : of the numbers of ID and of OOD rows: (m,) values.
    """
    import scipy.stats  # slow to import

    return scipy.stats.bootstrap(
        (np.flatnonzero(~is_ood), np.flatnonzero(is_ood)),
        statistic,
        vectorized=False,
        n_resamples=samples,
        batch=_RESAMPLES_AT_ONCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval


def places_of(scores: np.ndarray) -> np.ndarray:
    """Places (n,) of scores among their distinct values.

    Only order counts: a resample's AUROC follows from them by counting, without a sort.
    """
    return np.unique(scores, return_inverse=True)[1]


def resampled_auroc(id_places: np.ndarray, ood_places: np.ndarray) -> float:
    """The share of pairs whose OOD molecule has the higher place; ties count one half."""
    size = max(id_places.max(), ood_places.max()) + 1
    id_counts = np.bincount(id_places, minlength=size)
    below = np.cumsum(id_counts) - id_counts / 2
    return below[ood_places].sum() / (len(id_places) * len(ood_places))


def evaluate(
    id_energies: np.ndarray, ood_energies: np.ndarray, *, bootstrap_samples: int, seed: int
) -> dict[str, Any]:
    """Metrics, intervals and mean energies of a test set, ready for JSON."""
    labels = np.repeat([0, 1], [len(id_energies), len(ood_energies)])
    energies = np.concatenate([id_energies, ood_energies])
    metrics = ood_metrics(labels, energies)
    intervals = bootstrap_intervals(labels, energies, samples=bootstrap_samples, seed=seed)
    id_mean, ood_mean = float(id_energies.mean()), float(ood_energies.mean())
    return {
        **metrics,
        **{f"{name}_ci95": list(interval) for name, interval in intervals.items()},
        "id_mean_energy": id_mean,
        "ood_mean_energy": ood_mean,
        "energy_separation": ood_mean - id_mean,
        "id_molecules": len(id_energies),
        "ood_molecules": len(ood_energies),
        "bootstrap_samples": bootstrap_samples,
        "peak_gpu_memory_eval_gb": telemetry.peak_gpu_memory_gb(),
        "peak_resident_memory_eval_gb": telemetry.peak_resident_memory_gb(),
    }
