"""jobs.compare: shared encoding, failed and finished runs, what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import compare as compare_job
from jobs.cli import main, parse
from jobs.quickstart import QuickstartSettings
from pipeline.comparison import run as compare
from pipeline.comparison.run_folders import read_run
from pipeline.comparison.settings import CompareSettings
from pipeline.encoders import load_encoder
from pipeline.evaluation import run as evaluation
from pipeline.evaluation.metrics import ood_metrics
from pipeline.runtime.errors import InputError
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from pipeline.training.settings import TrainSettings
from tests.commands import assert_one_line

NAMES = ("train", "iid_val", "iid_test", "ood_val", "ood_test")


def settings(home: Path, **changes: Any) -> CompareSettings:
    usual = {
        "freeze_layers": "0", "epochs": 2, "batch_size": 16, "encoder_lr": 1e-2,
        "precision": "fp32", "seeds": [1, 2], "output_dir": str(home / "out"),
        "conformer_method": "etkdg",
    }  # fmt: skip
    return CompareSettings(
        data_file=str(home / "split.json"), sampling="all", ood_val_by="molecule", device="cpu",
        encoder_workers=1, cache_root=str(home / "store"), bootstrap_samples=100,
        weights=str(home / "weights.pt"), **{**usual, **changes},
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(ray_session, tmp_path_factory, small_weights, hiv_smiles, moses_smiles) -> Path:
    """A folder with weights and a split: MOSES is ID, HIV is OOD."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "weights.pt").write_bytes(small_weights.read_bytes())
    small = [s for s in hiv_smiles if len(s) < 40]
    parts = [moses_smiles[:32], moses_smiles[32:44], moses_smiles[44:60], small[:40], small[40:56]]
    items = {name: [{"smiles": s} for s in part] for name, part in zip(NAMES, parts)}
    (folder / "split.json").write_text(json.dumps({"split": items}))
    return folder


def named(run: TrainSettings) -> tuple[str, int]:
    return Path(run.output_dir).parent.name, run.seed


def train_by(monkeypatch: pytest.MonkeyPatch, train: Callable[[TrainSettings], Any]) -> None:
    """Have every run trained by a function, those that train together too."""
    monkeypatch.setattr(evaluation, "run_training", lambda run, share: train(run))
    monkeypatch.setattr(evaluation, "run_trainings", lambda runs, share: [train(r) for r in runs])


@pytest.fixture(scope="module")
def made(home, in_process, encoder_in_process) -> tuple[dict, list[list[tuple[str, int]]]]:
    """A comparison in which one run fails; its summary, and the runs that were tried at once."""
    tried, train, train_all = [], evaluation.run_training, evaluation.run_trainings

    def one(run, share):
        tried.append([named(run)])
        return train(run, share)

    def several(runs, share):
        tried.append([named(run) for run in runs])
        first, _ = train_all(runs, share)
        return [first, RuntimeError("the disk\nis on fire")]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "run_training", one)
        patch.setattr(evaluation, "run_trainings", several)
        return compare.run_comparison(settings(home)), tried


def test_a_failed_run_is_reported_and_the_others_count(home, made):
    summary, tried = made
    assert tried == [[("frozen", 1), ("frozen", 2)], [("finetuned", 1)], [("finetuned", 2)]]
    assert summary["failed"] == [{"arm": "frozen", "seed": 2, "reason": "RuntimeError: is on fire"}]
    assert summary["improvement"]["auroc"]["seeds"] == [1]
    assert summary["arms"]["finetuned"]["metrics"]["auroc"]["values"].keys() == {"1", "2"}
    assert summary["rivals"].keys() == {"descriptor", "tanimoto"}
    assert "frozen, seed 2: RuntimeError" in (home / "out" / "comparison_summary.txt").read_text()


def test_the_summary_holds_what_the_runs_predicted(home, made):
    summary = json.loads((home / "out" / "comparison_summary.json").read_text())
    assert summary == made[0]
    for arm, seed in (("frozen", 1), ("finetuned", 1), ("finetuned", 2)):
        run = read_run(str(home / "out"), arm, seed)
        found = ood_metrics(run.is_ood.astype(int), run.energies)
        for name, value in found.items():
            kept = summary["arms"][arm]["metrics"][name]["values"][str(seed)]
            assert kept == pytest.approx(value, abs=1e-9)
    assert summary["test_molecules"] == {"id": 16, "ood": 16}
    assert summary["arms"]["finetuned"]["costs"]["train_time_seconds"]["mean"] > 0


def files_in(folder: Path) -> set[str]:
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name for name in names if not name.startswith(".ray_train")}


def test_a_frozen_run_is_what_it_is_alone(home, made, tmp_path, in_process):
    """Made and trained with the other seeds' or by itself: the same predictions and epochs."""
    together = read_run(str(home / "out"), "frozen", 1)
    checkpoint = load_checkpoint(str(home / "out/frozen/seed_1/checkpoint"))
    alone = TrainSettings(**{**checkpoint.settings, "output_dir": str(tmp_path / "frozen/seed_1")})
    evaluation.train_and_evaluate(alone)
    single = read_run(str(tmp_path), "frozen", 1)
    assert together.stats["heads_together"] == 2 and "heads_together" not in single.stats
    assert together.ids == single.ids
    np.testing.assert_allclose(together.energies, single.energies, atol=1e-6)
    assert together.results["auroc"] == pytest.approx(single.results["auroc"], abs=1e-9)
    for mine, theirs in zip(together.dynamics, single.dynamics, strict=True):
        times = {"epoch_time_seconds": 0}
        assert mine | times == pytest.approx(theirs | times, abs=1e-5)
    assert files_in(home / "out/frozen/seed_1") - files_in(tmp_path / "frozen/seed_1") == {
        "finished.json"
    }
    assert files_in(tmp_path / "frozen/seed_1") <= files_in(home / "out/frozen/seed_1")


def test_features_are_encoded_once_for_all_runs(home, made):
    summary, _ = made
    assert summary["shared_encoding"]["molecules"] == 116
    for arm, seed in (("frozen", 1), ("finetuned", 1), ("finetuned", 2)):
        assert read_run(str(home / "out"), arm, seed).stats["encoded_molecules"] == 0


def test_drift_is_the_cosine_between_the_encoders(home, made):
    summary, _ = made
    run = read_run(str(home / "out"), "finetuned", 1)
    checkpoint = str(home / "out" / "finetuned" / "seed_1" / "checkpoint")
    frozen = load_encoder("unimol", weights=str(home / "weights.pt"), precision="fp32")
    finetuned = load_encoder("unimol", finetuned=checkpoint, precision="fp32")
    before, after = (encoder.encode_smiles(run.smiles) for encoder in (frozen, finetuned))
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosine = (before * after).sum(axis=1) / norms
    assert summary["feature_cosine"]["1"]["mean"] == pytest.approx(cosine.mean(), abs=1e-4)
    assert summary["feature_cosine"]["1"]["least"] == pytest.approx(cosine.min(), abs=1e-4)
    assert cosine.min() < 0.999


def test_figures_are_written(home, made):
    assert made[0]["figures"] == [
        "roc.png", "energies.png", "dynamics.png", "drift.png", "movers.png"
    ]  # fmt: skip
    for name in made[0]["figures"]:
        assert (home / "out" / "figures" / name).read_bytes().startswith(b"\x89PNG")


def test_a_second_start_makes_the_missing_run_alone_and_apart(home, made, capsys):
    """As after Ctrl-C; two runs at a time, each in a process of its own."""
    before = (home / "out/finetuned/seed_1/training_stats.json").read_text()
    summary = compare.run_comparison(settings(home, parallel_runs=2))
    assert summary["failed"] == [] and summary["improvement"]["auroc"]["seeds"] == [1, 2]
    assert (home / "out/finetuned/seed_1/training_stats.json").read_text() == before
    for arm in ("frozen", "finetuned"):
        values = made[0]["arms"][arm]["metrics"]["auroc"]["values"]
        again = summary["arms"][arm]["metrics"]["auroc"]["values"]
        assert {seed: again[seed] for seed in values} == values


def test_a_run_that_is_made_anew_is_unfinished_until_its_end(home, made, monkeypatch):
    """Else the results of two settings could be mixed."""
    kept = {path: path.read_bytes() for path in (home / "out").glob("*/*/finished.json")}
    assert len(kept) == 4

    def fail(run):
        assert not Path(run.output_dir, "finished.json").exists()
        raise InputError("no luck")

    train_by(monkeypatch, fail)
    with pytest.raises(InputError, match="no run finished"):
        compare.run_comparison(settings(home, lr=1e-2))
    for marker, content in kept.items():
        assert not marker.exists()
        marker.write_bytes(content)


def test_frozen_runs_do_not_depend_on_the_finetuning(home, made, monkeypatch):
    tried = []

    def fail(run):
        tried.append(Path(run.output_dir).parent.name)
        raise InputError("no luck")

    train_by(monkeypatch, fail)
    monkeypatch.setattr(compare, "_drift", lambda *_: {})
    summary = compare.run_comparison(settings(home, seeds=[1], encoder_lr=1e-3))
    assert tried == ["finetuned"]
    assert summary["improvement"] is None and len(summary["failed"]) == 1


def test_what_is_forced_is_made_once(home, made, monkeypatch):
    seen = []

    def fail(run):
        seen.append((run.force_recompute_cache, run.retry_rejected))
        raise InputError("no luck")

    train_by(monkeypatch, fail)
    with pytest.raises(InputError, match="no run finished"):
        forced = settings(home, force_recompute_cache=True, output_dir=str(home / "forced"))
        compare.run_comparison(forced)
    assert seen == [(False, False)] * 3  # the frozen runs fail with their first


def test_a_changed_setting_makes_runs_anew(home, made, monkeypatch):
    tried = []

    def fail(run):
        tried.append(run.seed)
        raise InputError("no luck")

    train_by(monkeypatch, fail)
    with pytest.raises(InputError, match="no run finished; the first failed so: no luck"):
        compare.run_comparison(settings(home, lr=1e-3))
    assert tried == [1, 1, 2]  # the frozen runs fail with their first


# --- the command -----------------------------------------------------------------------------


def seeds_of(*words: str) -> list[int]:
    return parse(CompareSettings, "compare", ["--data_file", "x", *words]).seeds


def test_seeds_are_written_as_words_or_as_a_list():
    assert seeds_of() == [42, 43, 44]
    assert seeds_of("--seeds", "1", "2", "--lr", "0.1") == [1, 2]
    assert seeds_of("--seeds", "7") == [7]
    assert seeds_of("--seeds", "[3, 4]") == [3, 4]


def test_settings_of_any_job_are_read():
    """Also those whose module keeps its annotations as types."""
    made = parse(QuickstartSettings, "quickstart", ["--force_recompute_cache", "--output_dir", "x"])
    assert made.force_recompute_cache is True and made.output_dir == "x"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seeds", "1", "1"], "none twice"),
        (["--seeds", "[]"], "at least one seed"),
        (["--seeds", "one"], "--seeds"),
        (["--seeds"], "--seeds"),
        (["--freeze_layers", "0-1"], "every layer is frozen"),
        (["--foundation_model", "minimol"], "minimol cannot be finetuned"),
    ],
)
def test_wrong_settings_are_told_in_one_line(home, tmp_path, capsys, words, told):
    argv = [
        "--data_file", str(home / "split.json"), "--weights", str(home / "weights.pt"),
        "--freeze_layers", "0", "--sampling", "all", "--device", "cpu",
        "--cache_root", str(tmp_path / "store"), "--output_dir", str(tmp_path / "out"), *words,
    ]  # fmt: skip
    code = main(CompareSettings, compare_job.compare, "compare", argv)
    assert_one_line(code, capsys.readouterr().err, "compare", told)
