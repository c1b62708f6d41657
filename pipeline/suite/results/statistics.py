"""What a table of cells says of its methods: means over seeds, differences, ranks.

Blocks are what methods are compared on: data sets with an encoder each, or data sets alone where
encoders are compared too. Seeds of one block are no blocks of their own: they share molecules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.comparison.statistics import spread
from pipeline.evaluation.metrics import paired_interval, places_of, resampled_auroc
from pipeline.runtime.errors import InputError
from pipeline.suite.cells import Energies
from pipeline.suite.data.roles import LEAST_TESTS
from pipeline.suite.results.table import ALL_METRICS, COSTS, DONE, ENERGIES, FAILED, warning_of

Row = Mapping[str, Any]
GROUP = ("data", "test_data", "encoder", "detector", "variant")
ALPHA = 0.05


def groups_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Cells that differ in their seed alone, as one: mean and deviation over seeds.

    Returns
    -------
    list
        Of each group `data`, `test_data`, `encoder`, `detector`, `variant`, `num_seeds`, `seeds`,
        `any_seed` (fitted once: no seed changes it), `failed_seeds`, `metrics` (by metric `mean`,
        `std`, `values` by seed), `energies`, `costs` (`mean`, `max`), the audit's, and `warning`.
    """
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault(tuple(row[name] for name in GROUP), []).append(row)
    return [_group(dict(zip(GROUP, key)), found) for key, found in kinds.items()]


def _group(labels: dict[str, str], rows: Sequence[Row]) -> dict[str, Any]:
    done = [row for row in rows if row["status"] == DONE]
    metrics = {
        name: {**spread([row[name] for row in done]),
               "values": {str(row["seed"]): row[name] for row in done}}
        for name in ALL_METRICS
    }  # fmt: skip
    costs = {name: [row[name] for row in done if row[name] is not None] for name in COSTS}
    audit = {
        name: rows[0][name]
        for name in ("best_descriptor", "best_descriptor_auroc", "tanimoto_auroc")
    }
    return {
        **labels,
        "num_seeds": len(done),
        "seeds": [row["seed"] for row in done],
        "any_seed": rows[0]["any_seed"],
        "failed_seeds": [row["seed"] for row in rows if row["status"] == FAILED],
        "metrics": metrics,
        "energies": {name: spread([row[name] for row in done]) for name in ENERGIES},
        "costs": {
            name: {"mean": float(np.mean(values)), "max": float(max(values))}
            for name, values in costs.items() if values
        },
        "dropped_test_molecules": next((row["dropped_test_molecules"] for row in done), None),
        **audit,
        "warning": warning_of({**audit, "auroc": metrics["auroc"]["mean"]}),
    }  # fmt: skip


def method_of(group: Mapping[str, Any], with_encoder: bool) -> str:
    """The method that a group is of, as tables name it: [ENCODER/]DETECTOR[ (variant)]."""
    name = f"{group['encoder']}/{group['detector']}" if with_encoder else group["detector"]
    return f"{name} ({group['variant']})" if group["variant"] else name


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, by Holm (Scandinavian Journal of Statistics, 1979)."""
    order, adjusted, largest = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for place, which in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[which]))
        adjusted[which] = largest
    return adjusted


def ranks(scores: np.ndarray, methods: Sequence[str]) -> dict[str, Any]:
    """Average ranks (1: best) of methods over blocks, and whether they differ at all.

    Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006.

    Parameters
    ----------
    scores : (blocks, methods), higher is better; ties share their mean rank.

    Returns
    -------
    dict
        `average_ranks` by method; `friedman_p`, None with fewer than three methods or two blocks;
        `critical_difference` of average ranks (Nemenyi, 5 %), None with fewer than two methods.
    """
    import scipy.stats  # slow to import

    blocks, count = scores.shape
    found = scipy.stats.rankdata(-scores, axis=1).mean(axis=0)
    p = None
    if count > 2 and blocks > 1:
        with np.errstate(invalid="ignore"):  # 0 / 0 where all methods are equal on all blocks
            p = float(scipy.stats.friedmanchisquare(*scores.T).pvalue)
    critical = None
    if count > 1:
        q = scipy.stats.studentized_range.ppf(1 - ALPHA, count, np.inf) / np.sqrt(2)
        critical = float(q * np.sqrt(count * (count + 1) / (6 * blocks)))
    return {
        "blocks": blocks,
        "average_ranks": dict(sorted(zip(methods, found.tolist()), key=lambda each: each[1])),
        "friedman_p": p if p is None or np.isfinite(p) else 1.0,
        "critical_difference": critical,
    }


def signed_rank(differences: np.ndarray) -> float:
    """P-value (two-sided) of Wilcoxon's signed-rank test that blocks' differences (n,) are 0."""
    import scipy.stats  # slow to import

    if not np.any(differences):
        return 1.0
    return float(scipy.stats.wilcoxon(differences).pvalue)


def paired_differences(
    methods: Mapping[str, Sequence[Energies]], reference: str, *, samples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """AUROC of each method less the reference's on one test set, with a 95 % interval.

    A resample is the same molecules for all methods; of a method's seeds the mean counts.

    Parameters
    ----------
    methods : by method the energies of its seeds; molecules that one of them lacks are left out.
    samples, seed : of the bootstrap; ID and OOD molecules are resampled apart.

    Returns
    -------
    dict
        By method but the reference `difference`, `ci95`; and `molecules`, those compared on.

    Raises
    ------
    InputError
        As `aligned`.
    """
    common, is_ood = aligned(methods)
    places = _places(common)
    others = [name for name in places if name != reference]

    def statistic(id_rows: np.ndarray, ood_rows: np.ndarray) -> np.ndarray:
        areas = _areas(places, id_rows, ood_rows)
        return np.array([areas[name] - areas[reference] for name in others])

    found = statistic(np.flatnonzero(~is_ood), np.flatnonzero(is_ood))
    interval = paired_interval(is_ood, statistic, samples=samples, seed=seed)
    return {
        name: {"difference": float(value), "ci95": [float(low), float(high)],
               "molecules": len(is_ood)}
        for name, value, low, high in zip(others, found, interval.low, interval.high)
    }  # fmt: skip


def mean_aurocs(energies: Mapping[str, np.ndarray], is_ood: np.ndarray) -> dict[str, float]:
    """By method the AUROC, as a mean over seeds, of what `aligned` gives."""
    return {
        name: float(area)
        for name, area in _areas(
            _places(energies), np.flatnonzero(~is_ood), np.flatnonzero(is_ood)
        ).items()
    }


def _places(energies: Mapping[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    return {name: [places_of(row) for row in rows] for name, rows in energies.items()}


def _areas(
    places: Mapping[str, Sequence[np.ndarray]], id_rows: np.ndarray, ood_rows: np.ndarray
) -> dict[str, Any]:
    return {
        name: np.mean([resampled_auroc(p[id_rows], p[ood_rows]) for p in each])
        for name, each in places.items()
    }


def aligned(
    methods: Mapping[str, Sequence[Energies]],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """By method the energies (seeds, n) of the molecules that all have, and which are OOD (n,).

    Raises
    ------
    InputError
        If fewer than `LEAST_TESTS` of a kind are common to all.
    """
    every = [each for found in methods.values() for each in found]
    common = set(every[0].ids).intersection(*(each.ids for each in every[1:]))
    first = every[0]
    is_ood = np.array([ood for i, ood in zip(first.ids, first.is_ood) if i in common], dtype=bool)
    ids = [i for i in first.ids if i in common]
    for kind, count in (("ID", (~is_ood).sum()), ("OOD", is_ood.sum())):
        if count < LEAST_TESTS:
            raise InputError(
                f"its methods have {count} {kind} test molecules in common, at least {LEAST_TESTS} "
                "are needed"
            )

    def of(each: Energies) -> np.ndarray:
        if each.ids == ids:
            return each.energies
        row = {i: place for place, i in enumerate(each.ids)}
        return each.energies[[row[i] for i in ids]]

    return {name: np.array([of(each) for each in found]) for name, found in methods.items()}, is_ood
