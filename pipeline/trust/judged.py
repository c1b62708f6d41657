"""Scores of a table judged: how well they find errors, and what intervals they make."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest

from pipeline.trust.errors.conformal import least_molecules, quantile
from pipeline.trust.metrics import METRICS, bootstrap, finds_errors
from pipeline.trust.table import Predictions

HALVES = 20  # times that the rows in domain are halved into calibration and test
LEAST_SCALE = 0.1  # of a score's mean, below which it counts as that as an interval's scale
RANDOM, ORACLE = "random", "oracle"


def all_scores(table: Predictions, seed: int) -> dict[str, np.ndarray]:
    """The table's scores, a random one, and the errors themselves, (n,) each."""
    errors = np.abs(table.label - table.prediction)
    rng = np.random.default_rng(seed)
    return {**table.scores, RANDOM: rng.random(len(errors)), ORACLE: errors}


def judged(table: Predictions, *, alpha: float, samples: int, seed: int) -> dict[str, Any]:
    """What the scores are worth, ready for JSON.

    Returns
    -------
    dict
        `molecules`, `rmse`; `scores`: of each its metrics, each with its `_ci95`; `intervals`: as
        `intervals_of`; `warnings`.
    """
    errors = np.abs(table.label - table.prediction)
    scores = all_scores(table, seed)
    spans = bootstrap(scores, errors, samples=samples, seed=seed)
    found = {}
    for name, values in scores.items():
        metrics = finds_errors(values, errors)
        found[name] = {}
        for metric in METRICS:
            found[name] |= {metric: metrics[metric], f"{metric}_ci95": spans[name][metric]}
    intervals = intervals_of(table, alpha, seed)
    return {
        "molecules": len(errors),
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "scores": found,
        "intervals": intervals,
        "warnings": [*warnings_of(found), *too_narrow(intervals.get("given", {}), alpha)],
    }


def warnings_of(found: dict[str, dict[str, Any]]) -> list[str]:
    """What a user should know of their scores, a sentence each."""
    told = []
    rivals = [name for name in found if name.startswith("Tanimoto")]
    best = max(rivals, key=lambda name: found[name]["auroc_worst"], default=None)
    for name, of_score in found.items():
        if name in (RANDOM, ORACLE) or name in rivals:
            continue
        if of_score["spearman_ci95"][1] < 0:
            told.append(
                f"{name}: higher values go with smaller errors; a score must be higher where "
                "predictions are to be trusted less"
            )
        elif of_score["spearman_ci95"][0] <= 0:
            told.append(f"{name}: no better than chance on these molecules")
        elif best and of_score["auroc_worst"] < found[best]["auroc_worst"]:
            told.append(f"{name}: {best} finds the worst fifth better")
    return told


def too_narrow(given: dict[str, dict[str, Any]], alpha: float) -> list[str]:
    """A sentence for each part of the rows that the table's own intervals hold too little of.

    By Wilson's 95 % interval of the coverage, which must reach 1 − alpha.
    """
    told = []
    for kind, part in given.items():
        rows, where = part["rows"], kind.replace("_", " ")
        held = round(part["coverage"] * rows)
        span = binomtest(held, rows).proportion_ci(method="wilson")
        if span.high < 1 - alpha:
            told.append(
                f"the table's own intervals hold {held} of {rows} values {where}, "
                f"{held / rows:.1%} [{span.low:.1%}, {span.high:.1%}], and should hold "
                f"{1 - alpha:.0%} (--interval_alpha {alpha:g}): what calibrated them was not like "
                "these; take intervals scaled by a score, by measured values of such molecules"
            )
    return told


def intervals_of(table: Predictions, alpha: float, seed: int) -> dict[str, Any]:
    """Coverage and mean width of intervals in and out of domain.

    Those of a score are prediction ∓ q · score, with q by one random half of the rows in domain,
    measured on the other half and on all rows out of domain; means over `HALVES` halvings.

    Returns
    -------
    dict
        By score ("constant" for a width that is the same everywhere, "given" for the table's own
        bounds, with the number of `rows`): coverage and width `in_domain`, and `out_of_domain` if
        there are any; or `not_made`, the reason.
    """
    errors = np.abs(table.label - table.prediction)
    inside = np.ones(len(errors), bool) if table.in_domain is None else table.in_domain
    outside = ~inside
    found: dict[str, Any] = {}
    if table.bounds is not None:
        lower, upper = table.bounds
        covered = (lower <= table.label) & (table.label <= upper)
        found["given"] = _both(covered, upper - lower, inside, outside)
        for part, rows in (("in_domain", inside), ("out_of_domain", outside)):
            if part in found["given"]:
                found["given"][part]["rows"] = int(rows.sum())
    halves = _halves(np.flatnonzero(inside), seed)
    if len(halves[0]) < least_molecules(alpha):
        why = (
            f"{inside.sum():,} rows in domain are too few: {2 * least_molecules(alpha):,} are "
            f"needed at --interval_alpha {alpha:g}"
        )
        return {**found, "constant": {"not_made": why}}
    for name, scale in {"constant": np.ones(len(errors)), **table.scores}.items():
        if scale.min() < 0 or scale.max() == 0:
            found[name] = {"not_made": "it has negative values, or only 0, and so is no scale"}
            continue
        scale = np.maximum(scale, LEAST_SCALE * scale.mean())
        made = []
        for calibration in halves:
            q = quantile((errors / scale)[calibration], alpha)
            tested = inside.copy()
            tested[calibration] = False
            made.append(_both(errors <= q * scale, 2 * q * scale, tested, outside))
        found[name] = {
            kind: {key: float(np.mean([each[kind][key] for each in made])) for key in made[0][kind]}
            for kind in made[0]
        }
    return found


def _halves(rows: np.ndarray, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(rows)[: len(rows) // 2] for _ in range(HALVES)]


def _both(
    covered: np.ndarray, width: np.ndarray, inside: np.ndarray, outside: np.ndarray
) -> dict[str, dict[str, float]]:
    parts = {"in_domain": inside, "out_of_domain": outside}
    return {
        kind: {"coverage": float(covered[rows].mean()), "width": float(width[rows].mean())}
        for kind, rows in parts.items()
        if rows.any()
    }
