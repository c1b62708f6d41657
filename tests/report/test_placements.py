"""Counting among molecules of the other kind, against scikit-learn and the conformal p-values."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.evaluation.calibration import Calibration
from pipeline.report.placements import leave_one_out_p_values, placements


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    is_ood = rng.random(200) < 0.4
    return rng.normal(0, 1, 200).round(1) + is_ood, is_ood  # with ties


def test_means_of_placements_are_aurocs_of_all_and_of_parts(made):
    energies, is_ood = made
    shares = placements(energies, is_ood)
    whole = roc_auc_score(is_ood, energies)
    assert shares[is_ood].mean() == pytest.approx(whole)
    assert shares[~is_ood].mean() == pytest.approx(whole)
    some = np.flatnonzero(is_ood)[:17]
    rows = np.concatenate([np.flatnonzero(~is_ood), some])
    assert shares[some].mean() == pytest.approx(roc_auc_score(is_ood[rows], energies[rows]))


def test_p_values_are_those_of_a_calibration_without_the_molecule_itself(made):
    energies, is_ood = made
    found = leave_one_out_p_values(energies, is_ood)
    known = np.flatnonzero(~is_ood)
    for row in (*known[:5], *np.flatnonzero(is_ood)[:5]):
        others = Calibration(np.sort(energies[known[known != row]]))
        assert found[row] == pytest.approx(others.p_values(energies[[row]])[0])
