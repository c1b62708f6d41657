import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pipeline.detectors.heads.energy_head import EnergyHead, energies_of
from pipeline.evaluation.metrics import (
    METRICS,
    bootstrap_intervals,
    evaluate,
    metrics_of,
    ood_metrics,
)

# Few distinct values, so that ties are common.
ENERGIES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)


def labelled(id_energies, ood_energies):
    labels = np.repeat([0, 1], [len(id_energies), len(ood_energies)])
    return labels, np.concatenate([id_energies, ood_energies])


@settings(deadline=None, max_examples=60)
@given(ENERGIES, ENERGIES)
def test_metrics_equal_scikit_learn_and_a_count_over_pairs(id_energies, ood_energies):
    labels, energies = labelled(id_energies, ood_energies)
    metrics = ood_metrics(labels, energies)

    assert metrics["auroc"] == pytest.approx(roc_auc_score(labels, energies), abs=1e-6)
    assert metrics["aupr"] == pytest.approx(average_precision_score(labels, energies), abs=1e-6)
    fpr, tpr, _ = roc_curve(labels, energies)
    assert metrics["fpr95"] == pytest.approx(fpr[tpr >= 0.95].min(), abs=1e-6)

    delta = np.asarray(ood_energies)[:, None] - np.asarray(id_energies)[None, :]
    pairs = (delta > 0).mean() + 0.5 * (delta == 0).mean()
    assert metrics["auroc"] == pytest.approx(pairs, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(ENERGIES, ENERGIES, st.integers(0, 2**32 - 1))
def test_metrics_of_a_resample_equal_scikit_learns(id_energies, ood_energies, seed):
    labels, energies = labelled(id_energies, ood_energies)
    rng = np.random.default_rng(seed)
    rows = [
        rng.choice(np.flatnonzero(labels == label), (labels == label).sum()) for label in (0, 1)
    ]
    found = metrics_of(energies)(*rows)
    rows = np.concatenate(rows)
    expected = ood_metrics(labels[rows], energies[rows])
    np.testing.assert_allclose(found, [expected[name] for name in METRICS], rtol=0, atol=1e-12)


def test_fpr95_counts_id_molecules_above_the_threshold_that_keeps_95_percent_of_ood():
    id_energies, ood_energies = np.arange(100.0), np.arange(50.0, 150.0)
    labels, energies = labelled(id_energies, ood_energies)
    threshold = np.sort(ood_energies)[5]  # 95 of 100 OOD energies are at or above it
    expected = (id_energies >= threshold).mean()
    assert ood_metrics(labels, energies)["fpr95"] == pytest.approx(expected)


def test_higher_energy_means_more_ood():
    labels, energies = labelled([0.0, 1.0], [2.0, 3.0])
    assert ood_metrics(labels, energies) == {"auroc": 1.0, "aupr": 1.0, "fpr95": 0.0}
    assert ood_metrics(labels, -energies)["auroc"] == 0.0


def normal_sample(n, seed=0):
    rng = np.random.default_rng(seed)
    return labelled(rng.normal(0, 1, n), rng.normal(1, 1, n))


def test_intervals_hold_the_estimate_narrow_with_n_and_repeat_by_seed():
    few, many = normal_sample(100), normal_sample(1600)
    narrow = bootstrap_intervals(*many, samples=200, seed=1)
    wide = bootstrap_intervals(*few, samples=200, seed=1)
    for name, value in ood_metrics(*many).items():
        low, high = narrow[name]
        assert low <= value <= high
    width = {name: high - low for name, (low, high) in wide.items()}
    assert narrow["auroc"][1] - narrow["auroc"][0] < width["auroc"] / 2
    assert bootstrap_intervals(*few, samples=200, seed=1) == wide
    assert bootstrap_intervals(*few, samples=200, seed=2) != wide


def test_the_auroc_interval_has_the_width_that_theory_gives():
    # Hanley and McNeil's standard error for AUROC, doubled: about a 95 % interval.
    labels, energies = normal_sample(1000)
    auroc = roc_auc_score(labels, energies)
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = (auroc * (1 - auroc) + 999 * (q1 + q2 - 2 * auroc**2)) / 1000**2
    low, high = bootstrap_intervals(labels, energies, samples=400, seed=3)["auroc"]
    assert high - low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.2)


def test_energies_do_not_depend_on_the_batch_size_and_use_no_dropout():
    torch.manual_seed(0)
    head = EnergyHead(8, dropout=0.5).train()
    features = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    whole = energies_of(head, features, batch_size=100)
    np.testing.assert_allclose(energies_of(head, features, batch_size=7), whole, atol=1e-6)
    assert whole.shape == (100,)


def test_evaluate_names_what_reports_are_read_by():
    labels, energies = normal_sample(50)
    results = evaluate(energies[labels == 0], energies[labels == 1], bootstrap_samples=100, seed=0)
    assert results["id_mean_energy"] == pytest.approx(energies[labels == 0].mean())
    assert results["energy_separation"] == pytest.approx(
        energies[labels == 1].mean() - energies[labels == 0].mean()
    )
    keys = {"auroc", "aupr", "fpr95", "ood_mean_energy", "peak_gpu_memory_eval_gb"}
    assert keys <= results.keys()
    assert len(results["auroc_ci95"]) == 2
