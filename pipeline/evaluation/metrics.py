"""How well energies tell OOD from ID: metrics, their uncertainty, and each prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pipeline.runtime import telemetry

METRICS = ("auroc", "aupr", "fpr95")


def ood_metrics(labels: np.ndarray, energies: np.ndarray) -> dict[str, float]:
    """AUROC, AUPR and FPR at 95 % TPR, with OOD (label 1) as the positive class.

    Parameters
    ----------
    labels : (n,) of 0 (ID) and 1 (OOD), both present.
    energies : (n,), higher means more OOD.
    """
    fpr, tpr, _ = roc_curve(labels, energies, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(labels, energies)),
        "aupr": float(average_precision_score(labels, energies)),
        "fpr95": float(fpr[np.searchsorted(tpr, 0.95, side="left")]),
    }


def bootstrap_intervals(
    labels: np.ndarray, energies: np.ndarray, *, samples: int = 1000, seed: int = 42
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the metrics, ID and OOD molecules resampled apart.

    Parameters
    ----------
    labels, energies : as `ood_metrics`.
    samples : number of resamples.
    """
    id_energies, ood_energies = energies[labels == 0], energies[labels == 1]
    resampled = np.repeat([0, 1], [len(id_energies), len(ood_energies)])

    def statistic(id_sample: np.ndarray, ood_sample: np.ndarray) -> np.ndarray:
        metrics = ood_metrics(resampled, np.concatenate([id_sample, ood_sample]))
        return np.array([metrics[name] for name in METRICS])

    result = scipy.stats.bootstrap(
        (id_energies, ood_energies),
        statistic,
        vectorized=False,
        n_resamples=samples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return {
        name: (float(low), float(high))
        for name, low, high in zip(METRICS, interval.low, interval.high)
    }


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
