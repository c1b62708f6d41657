"""Average ranks and what follows from them, against Demšar's tables and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from pipeline.report.ranks import Ranks, average_ranks, critical_difference


@pytest.mark.parametrize(
    ("methods", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)]
)  # Demšar 2006, table 5 (a), α = 0.05
def test_the_critical_difference_is_that_of_nemenyis_table(methods, q):
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) == pytest.approx(expected, rel=5e-4)


def test_demsars_example_of_four_methods_on_fourteen_sets():
    """His figure 1 (a): ranks 3.143, 2.000, 2.893, 1.964 and a critical difference of 1.25."""
    scores = np.array(
        [[0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
         [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
         [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
         [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
         [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970]]
    )  # fmt: skip
    found = average_ranks(scores)
    assert found.ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=1e-3)
    assert found.distance == pytest.approx(1.25, abs=0.005)
    assert found.friedman == pytest.approx(scipy.stats.friedmanchisquare(*scores.T).pvalue)
    assert found.cliques == [(0, 3)]  # 3.143 − 1.964 is less than 1.25


def test_cliques_are_the_largest_groups_that_are_not_told_apart():
    def cliques(*ranks: float) -> list[tuple[int, int]]:
        return Ranks(np.array(ranks), 1.0, None, np.zeros(len(ranks))).cliques

    assert cliques(1.0, 1.5, 2.2, 2.4, 4.0) == [(0, 1), (1, 3)]
    assert cliques(4.0, 1.0, 2.0) == []  # just as far apart as the difference: told apart
    assert cliques(1.2, 1.1, 1.0) == [(0, 2)]


def test_holm_multiplies_the_smallest_p_by_the_number_of_tests():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1, (12, 3)) + np.array([2.0, 0.5, 0.0])
    found = average_ranks(scores)
    best = int(found.ranks.argmin())
    others = [m for m in range(3) if m != best]
    plain = [scipy.stats.wilcoxon(scores[:, best], scores[:, m]).pvalue for m in others]
    low, high = np.argsort(plain)
    assert np.isnan(found.holm[best])
    assert found.holm[others[low]] == pytest.approx(2 * plain[low])
    assert found.holm[others[high]] == pytest.approx(max(plain[high], 2 * plain[low]))


def test_too_few_data_sets_give_no_p_and_equal_methods_none_below_one():
    assert np.isnan(average_ranks(np.random.default_rng(0).random((5, 3))).holm).all()
    alike = average_ranks(np.ones((8, 3)))
    assert alike.friedman is None and np.nanmax(alike.holm) == np.nanmin(alike.holm) == 1
    with pytest.raises(ValueError, match="two"):
        average_ranks(np.ones((1, 3)))
    with pytest.raises(ValueError, match="missing|all"):
        average_ranks(np.array([[1.0, np.nan], [1.0, 0.0]]))
