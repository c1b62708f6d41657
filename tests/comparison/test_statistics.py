import json
import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from pipeline.comparison.run_folders import ARMS, align
from pipeline.comparison.statistics import movers, summarize
from pipeline.comparison.summary_text import summary_text
from pipeline.evaluation.metrics import METRICS
from pipeline.runtime.errors import InputError
from tests.comparison.made_runs import N_ID, N_OOD, both_arms, make_run, shuffled


def summary_of(runs, failed=None, samples=60, seed=0):
    return summarize(runs, failed or {}, bootstrap_samples=samples, seed=seed)


def test_mean_and_sample_standard_deviation_are_numpys():
    runs = both_arms((1, 2, 3, 4), finetuned_shift=1.5)
    summary = summary_of(runs, samples=20)
    for arm in ARMS:
        for name in METRICS:
            values = [run.results[name] for run in runs if run.arm == arm]
            found = summary["arms"][arm]["metrics"][name]
            assert found["mean"] == pytest.approx(np.mean(values))
            assert found["std"] == pytest.approx(np.std(values, ddof=1))
            assert found["values"] == dict(zip("1234", values))
            assert np.std(values, ddof=1) > 0
    assert summary["seeds"] == [1, 2, 3, 4]
    assert summary["test_molecules"] == {"id": N_ID, "ood": N_OOD}


def test_improvement_is_finetuned_minus_frozen_and_keeps_the_sign_of_fpr95():
    runs = both_arms((1, 2), frozen_shift=1.0, finetuned_shift=3.0)
    improvement = summary_of(runs)["improvement"]
    for name in METRICS:
        values = [runs[i + 2].results[name] - runs[i].results[name] for i in (0, 1)]
        assert improvement[name]["mean"] == pytest.approx(np.mean(values))
        assert improvement[name]["values"] == dict(zip("12", values))
        assert improvement[name]["seeds"] == [1, 2]
    assert improvement["auroc"]["ci95"][0] > 0
    assert improvement["auroc"]["better"] == "higher"
    assert improvement["fpr95"]["mean"] < 0
    assert improvement["fpr95"]["better"] == "lower"


def test_arms_that_are_the_same_have_an_interval_of_no_width():
    frozen = [make_run("frozen", seed) for seed in (1, 2)]
    summary = summary_of([*frozen, *(replace(run, arm="finetuned") for run in frozen)])
    for name in METRICS:
        assert summary["improvement"][name]["ci95"] == [0, 0]
        assert summary["improvement"][name]["mean"] == 0
    assert "no difference shown (better with 0 of 2 seeds)" in summary_text(summary)


def slow_intervals(runs, seeds, samples):
    """The paired bootstrap in plain loops."""
    rng = np.random.default_rng(99)
    energies = {(run.arm, run.seed): run.energies for run in runs}
    labels = np.array([0] * N_ID + [1] * N_OOD)
    drawn = []
    for _ in range(samples):
        rows = [int(rng.integers(N_ID)) for _ in range(N_ID)]
        rows += [N_ID + int(rng.integers(N_OOD)) for _ in range(N_OOD)]
        per_seed = []
        for seed in seeds:
            after = roc_auc_score(labels, energies["finetuned", seed][rows])
            per_seed.append(after - roc_auc_score(labels, energies["frozen", seed][rows]))
        drawn.append(np.mean(per_seed))
    return np.percentile(drawn, [2.5, 97.5])


def test_the_interval_is_that_of_a_plain_paired_bootstrap():
    runs = both_arms((1, 2), finetuned_shift=1.3)
    low, high = summary_of(runs, samples=400)["improvement"]["auroc"]["ci95"]
    slow_low, slow_high = slow_intervals(runs, (1, 2), 400)
    width = slow_high - slow_low
    assert low == pytest.approx(slow_low, abs=0.12 * width)
    assert high == pytest.approx(slow_high, abs=0.12 * width)


def test_pairing_narrows_the_interval_where_the_arms_agree_on_molecules():
    runs = both_arms((1,), finetuned_shift=1.1)
    low, high = summary_of(runs, samples=300)["improvement"]["auroc"]["ci95"]
    apart = []
    for run in runs:
        sample = (run.energies[~run.is_ood], run.energies[run.is_ood])
        apart.append(
            scipy.stats.bootstrap(
                sample, lambda x, y: (x[:, None] < y).mean(), vectorized=False,
                n_resamples=300, method="percentile", rng=np.random.default_rng(0),
            ).standard_error
        )  # fmt: skip
    assert high - low < 0.6 * 2 * 1.96 * np.hypot(*apart)


def test_the_order_of_molecules_and_of_runs_changes_nothing():
    runs = both_arms((1, 2), finetuned_shift=1.5)
    mixed = [shuffled(run, i) for i, run in enumerate(runs)]
    assert mixed[0].ids != mixed[1].ids
    assert summary_of(mixed[::-1]) == summary_of(runs)
    assert movers(mixed[:2], mixed[2:], 5) == movers(runs[:2], runs[2:], 5)


def test_intervals_repeat_by_seed():
    runs = both_arms((1,), finetuned_shift=1.5)
    assert summary_of(runs, seed=1) == summary_of(runs, seed=1)
    assert summary_of(runs, seed=1)["improvement"] != summary_of(runs, seed=2)["improvement"]


def test_runs_on_other_molecules_or_labels_are_refused():
    frozen, finetuned = both_arms((1,))
    other = replace(finetuned, ids=[*finetuned.ids[:-1], "another"])
    with pytest.raises(InputError, match="finetuned/seed_1 .* different molecules, 2 .*another"):
        summary_of([frozen, other])
    is_ood = finetuned.is_ood.copy()
    is_ood[4] = True
    with pytest.raises(InputError, match="which molecules are OOD: 1 of 70, such as mol004"):
        movers([frozen], [replace(finetuned, is_ood=is_ood)], 3)
    fewer = replace(finetuned, ids=finetuned.ids[:-1], is_ood=finetuned.is_ood[:-1],
                    energies=finetuned.energies[:-1], smiles=finetuned.smiles[:-1])  # fmt: skip
    with pytest.raises(InputError, match="1 are in one of them only: mol069"):
        align([frozen, fewer])


def test_improvement_is_over_the_seeds_that_both_arms_have():
    runs = both_arms((1, 2, 3), finetuned_shift=1.5)
    failed = {("finetuned", 3): "out of memory", ("frozen", 4): "disk full"}
    summary = summary_of(runs[:-1], failed)
    assert summary["seeds"] == [1, 2, 3, 4]
    assert summary["improvement"]["auroc"]["seeds"] == [1, 2]
    assert summary["improvement"] == summary_of([*runs[:2], *runs[3:5]])["improvement"]
    assert list(summary["arms"]["frozen"]["metrics"]["auroc"]["values"]) == ["1", "2", "3"]
    assert summary["failed"] == [
        {"arm": "finetuned", "seed": 3, "reason": "out of memory"},
        {"arm": "frozen", "seed": 4, "reason": "disk full"},
    ]
    text = summary_text(summary)
    assert "finetuned, seed 3: out of memory" in text
    assert "over the seeds that both arms finished: 1, 2." in text


@pytest.mark.parametrize("seeds", [((1, 2), ()), ((), (1, 2)), ((1,), (2,)), ((), ())])
def test_without_a_common_seed_there_is_no_improvement_and_nothing_fails(seeds):
    runs = [make_run(arm, seed) for arm, own in zip(ARMS, seeds) for seed in own]
    summary = json.loads(json.dumps(summary_of(runs)))
    assert summary["improvement"] is None
    for arm, own in zip(ARMS, seeds):
        found = summary["arms"][arm]["metrics"]["auroc"]
        assert list(found["values"]) == [str(seed) for seed in own]
        assert (found["mean"] is None) == (len(own) == 0)
        assert (found["std"] is None) == (len(own) < 2)
    assert "No seed finished in both arms" in summary_text(summary)


def test_costs_are_mean_and_highest_and_missing_ones_are_skipped():
    first = make_run("frozen", 1, encoding_time_seconds=10.0, peak_gpu_memory_encoding_gb=2.0,
                     train_time_seconds=4.0, avg_epoch_time_seconds=None)  # fmt: skip
    first.results.update(encoding_time_seconds=5.0, peak_gpu_memory_encoding_gb=3.0)
    second = make_run("frozen", 2, encoding_time_seconds=1.0, train_time_seconds=6.0)
    summary = summary_of([first, second])
    assert summary["arms"]["frozen"]["costs"] == {
        "encoding_time_seconds": {"mean": 8.0, "max": 15.0},
        "train_time_seconds": {"mean": 5.0, "max": 6.0},
        "peak_gpu_memory_encoding_gb": {"mean": 3.0, "max": 3.0},
    }
    text = summary_text(summary)
    assert "8.00 (15.00)" in text
    assert "Evaluation" not in text


@pytest.mark.parametrize(
    ("shift", "told"),
    [
        (2.5, r"Finetuning raises AUROC by 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]; the interval excludes"),
        (-1.0, r"Finetuning lowers AUROC by 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]; the interval exclud"),
        (1.0, r"Finetuning changes AUROC by [+-]0\.\d{4} \[-0\.\d{4}, \+0\.\d{4}\]; .* includes 0"),
    ],
)
def test_the_text_concludes_what_the_interval_says(shift, told):
    summary = summary_of(both_arms((1, 2), finetuned_shift=shift), samples=200)
    text = summary_text(json.loads(json.dumps(summary)))
    conclusion = text.splitlines()[-1]
    assert re.search(told, conclusion), conclusion
    found = summary["arms"]["finetuned"]["metrics"]["auroc"]
    assert f"{found['mean']:.3f} ± {found['std']:.3f}" in text
    assert "FPR at 95 % TPR (lower is better)" in text
    assert str(N_OOD) in text.splitlines()[0]


def test_an_arm_that_does_not_stand_above_what_needs_no_training_is_warned_of():
    summary = summary_of(both_arms((1, 2), frozen_shift=0.0, finetuned_shift=9.0))
    assert "needs no training" not in summary_text(summary)  # runs of an earlier version
    interval = {"auroc_ci95": [0.8, 0.95]}
    summary["rivals"] = {
        "descriptor": {"name": "rings", "ood_is": "lower", "auroc": 0.9, **interval},
        "tanimoto": {"auroc": 0.6, **interval},
    }
    text = summary_text(summary)
    assert "  0.900 [0.800, 0.950] rings (lower is OOD)\n" in text
    assert "Warning: rings (lower is OOD) alone has AUROC 0.900" in text
    assert "the frozen encoder 0." in text and "the finetuned encoder 1." not in text


def test_seeds_that_disagree_conclude_nothing():
    strong = [make_run("frozen", 1, 0.5), make_run("finetuned", 1, 3.0)]
    weak = [make_run("frozen", 2, 1.2), make_run("finetuned", 2, 0.9)]
    summary = summary_of(strong + weak)
    assert summary["improvement"]["auroc"]["ci95"][0] > 0
    conclusion = summary_text(summary).splitlines()[-1]
    assert "the seeds disagree (better with 1 of 2 seeds): no difference shown" in conclusion


def test_movers_gain_upwards_if_ood_and_downwards_if_id():
    before = np.arange(N_ID + N_OOD, dtype=float)
    after = before.copy()
    after[69] = -1.0  # OOD from the top to the bottom: lost
    after[0] = 62.5  # ID from the bottom upwards: lost, though less
    after[20] = 0.5  # ID down: gained
    after[31] = 45.5  # OOD up: gained, though less
    frozen = [make_run("frozen", seed, energies=before) for seed in (1, 2)]
    finetuned = [make_run("finetuned", seed, energies=after) for seed in (1, 2)]
    gained, lost = movers(frozen, finetuned, 2)

    assert [(mover.id, mover.is_ood) for mover in lost] == [("mol069", True), ("mol000", False)]
    assert [(m.id, m.is_ood) for m in gained] == [("mol020", False), ("mol031", True)]

    percentile = scipy.stats.percentileofscore
    for mover in (*gained, *lost):
        i = int(mover.id[3:])
        assert mover.smiles == "C" * (i + 1)
        # scipy counts the values below; the lowest of n is at 0 and the highest at 1
        n = len(before)
        for energies, found in ((before, mover.before), (after, mover.after)):
            below = percentile(energies, energies[i], kind="strict") / 100 * n
            assert found == pytest.approx(below / (n - 1))
        change = mover.after - mover.before
        assert mover.gain == pytest.approx(change if mover.is_ood else -change)


def test_movers_average_over_seeds_and_leave_out_what_did_not_move():
    up, down = np.arange(70.0), np.arange(70.0)[::-1]
    frozen = [make_run("frozen", 1, energies=up), make_run("frozen", 2, energies=down)]
    gained, lost = movers(frozen, [make_run("finetuned", 1, energies=up)], 100)
    assert all(mover.before == pytest.approx(0.5) for mover in (*gained, *lost))
    assert {mover.id for mover in gained} == {f"mol{i:03d}" for i in (*range(30), *range(35, 70))}
    assert movers(frozen, frozen, 5) == ([], [])
    assert movers([], frozen, 5) == movers(frozen, [], 5) == ([], [])
