"""Statistics of a suite, against scipy, scikit-learn and definitions."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pipeline.evaluation.metrics import metrics_both_ways
from pipeline.suite.cells import Energies
from pipeline.suite.results.compared import reach_notes
from pipeline.suite.results.statistics import (
    groups_of,
    holm,
    method_of,
    paired_differences,
    ranks,
    signed_rank,
)
from pipeline.suite.results.table import ALL_METRICS, COSTS, ENERGIES

rng = np.random.default_rng(3)


def closed_testing(p: list[float]) -> list[float]:
    """Holm's p-values as the closed test of Bonferroni's: the largest over sets with a member."""
    places = range(len(p))
    sets = [s for size in range(1, len(p) + 1) for s in combinations(places, size)]
    return [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in places]


@pytest.mark.parametrize(
    "p", [[0.01, 0.04, 0.03, 0.005], [0.5, 0.9], [0.02, 0.02, 0.02], [0.2], []]
)
def test_holm_is_the_closed_test_of_bonferroni(p):
    assert holm(p) == pytest.approx(closed_testing(p))


def test_ranks_and_their_test_are_scipys():
    scores = rng.normal(size=(7, 4))
    scores[:, 1] = scores[:, 0]  # ties
    found = ranks(scores, ["a", "b", "c", "d"])
    expected = np.mean([scipy.stats.rankdata(-row) for row in scores], axis=0)
    assert found["average_ranks"] == pytest.approx(dict(zip("abcd", expected)))
    assert list(found["average_ranks"].values()) == sorted(expected)
    assert found["friedman_p"] == pytest.approx(scipy.stats.friedmanchisquare(*scores.T).pvalue)


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_demsars_table(methods, q):
    found = ranks(rng.normal(size=(14, methods)), [str(i) for i in range(methods)])
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert found["critical_difference"] == pytest.approx(expected, abs=1e-3)


def test_demsars_example_of_four_methods_on_fourteen_sets():
    """His table 2 and figure 1 (a): ranks 3.143, 2.000, 2.893, 1.964, critical difference 1.25."""
    scores = np.array(
        [[0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
         [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
         [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
         [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
         [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970]]
    )  # fmt: skip
    found = ranks(scores, ["a", "b", "c", "d"])
    expected = {"a": 3.143, "b": 2.000, "c": 2.893, "d": 1.964}
    assert found["average_ranks"] == pytest.approx(expected, abs=1e-3)
    assert found["critical_difference"] == pytest.approx(1.25, abs=0.005)


def test_what_ranks_cannot_tell_is_none():
    found = ranks(np.array([[0.5, 0.6, 0.7]]), ["a", "b", "c"])
    assert found["friedman_p"] is None and found["average_ranks"]["c"] == 1
    assert ranks(np.array([[0.5], [0.6]]), ["a"])["critical_difference"] is None
    assert ranks(np.full((4, 3), 0.5), ["a", "b", "c"])["friedman_p"] == 1


@pytest.mark.parametrize(("methods", "blocks"), [(11, 6), (11, 9), (1, 6), (1, 5), (4, 7)])
def test_what_cannot_be_found_is_what_scipy_and_holm_give_at_best(methods, blocks):
    best = holm([signed_rank(np.arange(1.0, blocks + 1))] * methods)[0]
    notes = reach_notes(methods, blocks)
    assert bool(notes) == (best > 0.05)
    if notes and blocks >= 6:
        assert f"cannot be below {best:.3g}" in notes[0]
        needed = int(re.search(r"needs (\d+) blocks", notes[0])[1])
        p = [holm([signed_rank(np.arange(1.0, n + 1))] * methods)[0] for n in (needed - 1, needed)]
        assert p[0] > 0.05 >= p[1]


def test_the_signed_rank_test_is_scipys_and_1_where_nothing_differs():
    differences = rng.normal(0.3, 1, 9)
    assert signed_rank(differences) == pytest.approx(scipy.stats.wilcoxon(differences).pvalue)
    assert signed_rank(np.zeros(5)) == 1


def made(shift: float, rows: np.ndarray, seed: int) -> Energies:
    """Energies of some of 120 molecules, a third of them OOD."""
    is_ood = np.arange(120) % 3 == 0
    energies = np.random.default_rng(seed).normal(size=120) + shift * is_ood
    return Energies([f"m{i}" for i in rows], is_ood[rows], energies[rows])


def test_differences_are_of_the_molecules_that_all_methods_have():
    all_rows, fewer = np.arange(120), np.r_[110:10:-1]
    methods = {
        "reference": [made(0.5, all_rows, 1), made(0.5, all_rows, 2)],
        "better": [made(3.0, fewer, 3), made(3.0, fewer, 4)],
        "same": [made(0.5, all_rows, 1), made(0.5, all_rows, 2)],
    }
    found = paired_differences(methods, "reference", samples=200, seed=5)
    common = np.arange(11, 111)

    def mean_auroc(*seeds: tuple[float, int]) -> float:
        each = [made(shift, common, seed) for shift, seed in seeds]
        return float(np.mean([roc_auc_score(e.is_ood, e.energies) for e in each]))

    expected = mean_auroc((3.0, 3), (3.0, 4)) - mean_auroc((0.5, 1), (0.5, 2))
    assert found["better"]["difference"] == pytest.approx(expected)
    assert found["better"]["molecules"] == 100
    low, high = found["better"]["ci95"]
    assert 0 < low < expected < high
    assert found["same"] == {"difference": 0, "ci95": [0, 0], "molecules": 100}
    assert "reference" not in found


def test_metrics_both_ways_are_scikit_learns():
    labels, energies = rng.integers(0, 2, 300), rng.normal(size=300)
    found = metrics_both_ways(labels, energies)
    assert found["aupr"] == pytest.approx(average_precision_score(labels, energies))
    assert found["aupr_id_positive"] == pytest.approx(
        average_precision_score(1 - labels, -energies)
    )
    for name, truth, scores in (
        ("fpr95", labels, energies), ("fpr95_id_positive", 1 - labels, -energies),
    ):  # fmt: skip
        fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
        assert found[name] == pytest.approx(min(f for f, t in zip(fpr, tpr) if t >= 0.95))


def row(seed: int, auroc: float | None, **changes):
    """A cell's row; it has failed without an AUROC."""
    status = "failed" if auroc is None else "done"
    empty = dict.fromkeys([*ALL_METRICS, *ENERGIES, *COSTS], auroc)
    labels = {"data": "a", "test_data": "a", "encoder": "e", "detector": "dpo", "variant": ""}
    audit = {"best_descriptor": "rings", "best_descriptor_auroc": 0.8, "tanimoto_auroc": 0.7}
    more = {"any_seed": False, "dropped_test_molecules": 0, "status": status, "seed": seed}
    return {**empty, **labels, **audit, **more, **changes}


def test_groups_are_means_over_seeds_without_those_that_failed():
    rows = [row(1, 0.7), row(2, 0.9), row(3, None), row(1, 0.95, variant="lr=1")]
    first, second = groups_of(rows)
    assert first["num_seeds"] == 2 and first["failed_seeds"] == [3]
    assert first["metrics"]["auroc"]["mean"] == pytest.approx(0.8)
    assert first["metrics"]["auroc"]["std"] == pytest.approx(np.std([0.7, 0.9], ddof=1))
    assert second["metrics"]["auroc"]["std"] is None
    assert method_of(second, with_encoder=True) == "e/dpo (lr=1)"
    assert "rings alone has AUROC 0.800" in first["warning"] and second["warning"] == ""


def test_the_warning_begins_within_a_lead_of_0_02():
    assert [bool(groups_of([row(1, area)])[0]["warning"]) for area in (0.82, 0.8199)] == [
        False, True,
    ]  # fmt: skip
