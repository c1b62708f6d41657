"""jobs.train with --id_file: what is chosen, left out, weighed and written."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.detectors.registry import ENERGY_HEADS
from pipeline.detectors.settings import DetectorSettings
from pipeline.runtime.errors import InputError
from pipeline.training import fitting
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from pipeline.training.fitting import CANDIDATES, best_of, detectors_of
from pipeline.training.run import run_training
from pipeline.training.trained import Trained
from pipeline.training.worker import loop
from tests.made_sets import INSIDE, hiv, moses, train_settings, write_set, write_table
from tests.scoring.test_every_detector import described
from tests.stopped import stopped_at_a_checkpoint


@pytest.fixture(scope="module")
def home(ray_session, tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("training"))


def molecules_of(folder: Path, *roles: str) -> list[dict]:
    rows = pq.read_table(folder / "checkpoint/training_molecules.parquet").to_pylist()
    return [row for row in rows if row["role"] in roles]


# --- the choice of a detector -----------------------------------------------------------------


@pytest.fixture(scope="module")
def auto(home) -> tuple[Path, dict, str]:
    """A run with --detector auto in which one detector cannot be fitted, and what it logged."""
    told: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())

    handler, made = Kept(), fitting.detector_class

    def broken(name: str):
        if name == "mahalanobis":
            raise InputError("no room for a covariance")
        return made(name)

    log = logging.getLogger("pipeline.training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "detector_class", broken)
        patch.setattr(log, "level", logging.INFO)
        log.addHandler(handler)
        try:
            stats = run_training(train_settings(home, "auto", detector="auto"))
        finally:
            log.removeHandler(handler)
    return home / "auto", stats, "\n".join(told)


def test_auto_takes_the_best_validation_auroc_and_says_so(auto):
    folder, stats, told = auto
    aurocs = stats["chosen_by_validation_auroc"]
    assert list(aurocs) == [name for name in CANDIDATES if name != "mahalanobis"]
    assert stats["detector"] == max(aurocs, key=aurocs.get)
    assert stats["best_val_auroc"] == aurocs[stats["detector"]]
    assert f"--detector auto: {stats['detector']}" in told
    assert all(f"{name} {area:.3f}" in told for name, area in aurocs.items())
    assert json.loads((folder / "training_stats.json").read_text()) == stats


def test_what_cannot_be_fitted_is_left_out_and_said(auto):
    _, stats, told = auto
    assert stats["left_out"] == {"mahalanobis": "no room for a covariance"}
    assert "mahalanobis is left out: no room for a covariance" in told


def test_the_kept_detector_has_the_auroc_that_it_was_chosen_by(auto):
    """By the checkpoint's own scores of its validation molecules."""
    folder, stats, _ = auto
    checkpoint = load_checkpoint(str(folder / "checkpoint"))
    assert checkpoint.name == checkpoint.settings["detector"] == stats["detector"]
    rows = molecules_of(folder, "id_val", "ood_val")
    scores = checkpoint.scores(described([row["smiles"] for row in rows]))
    is_ood = [row["role"] == "ood_val" for row in rows]
    assert roc_auc_score(is_ood, scores) == pytest.approx(stats["best_val_auroc"], abs=1e-9)
    assert not list((folder / ".ray_train").glob("*/*"))  # nor of the heads that were not chosen


def made(name: str, area: float) -> Trained:
    return Trained({}, {"detector": name}, [], area, {}, leftovers=(name,))


def test_of_equals_the_first_counts_and_all_leftovers_are_known():
    areas = {"a": 0.7, "b": 0.9, "c": 0.9}
    best = best_of(list(areas), lambda name: made(name, areas[name]))
    assert best.config["detector"] == "b" and set(best.leftovers) == set(areas)


def test_where_none_can_be_fitted_the_reason_is_told():
    def fails(name: str) -> Trained:
        raise InputError(f"{name} cannot")

    with pytest.raises(InputError, match="--detector auto: none could be fitted; a cannot"):
        best_of(["a", "b"], fails)
    with pytest.raises(InputError, match="^a cannot$"):
        best_of(["a"], fails)


def test_a_detector_named_by_its_loss_is_that_head(home):
    for name in ENERGY_HEADS:
        assert detectors_of(train_settings(home, "unused", loss=name)) == (name,)
        assert detectors_of(train_settings(home, "unused", detector=name)) == (name,)


# --- labels -----------------------------------------------------------------------------------


def test_labels_that_a_detector_cannot_learn_from_are_told(home, tmp_path):
    inside = moses()[:INSIDE]
    for values, told in (
        ([None] * INSIDE, "an error model needs at least 60"),
        ([1] * INSIDE, "labels that are all 1"),
        ([i / 7 for i in range(INSIDE)], "needs labels of two classes"),
    ):
        file = write_table(tmp_path / "t.csv", smiles=inside, y=values)
        settings = train_settings(
            home, "labels", id_file=str(file), detector="msp", label_column="y"
        )
        with pytest.raises(InputError, match=told):
            run_training(settings)


# --- group DRO --------------------------------------------------------------------------------

DRO = {"detector": "bce", "group_weights": "dro", "group_step": 0.5, "epochs": 6,
       "checkpoint_every": 2, "early_stopping_patience": 6, "dropout": 0.1}  # fmt: skip


@pytest.fixture(scope="module")
def dro(home) -> list[dict]:
    run_training(train_settings(home, "dro", **DRO))
    return history(home / "dro")


def history(folder: Path) -> list[list[str]]:
    lines = [
        line.split(",") for line in (folder / "training_dynamics.csv").read_text().splitlines()
    ]
    place = lines[0].index("epoch_time_seconds")
    return [line[:place] + line[place + 1 :] for line in lines]


def test_group_dro_weighs_otherwise_than_training_without(home, dro):
    run_training(train_settings(home, "erm", **{**DRO, "group_weights": "none"}))
    assert len(dro) == len(history(home / "erm")) == 7
    assert dro != history(home / "erm")


def test_group_dro_resumes_to_the_same_weights(home, dro, monkeypatch):
    settings = train_settings(home, "resumed", **DRO)

    with stopped_at_a_checkpoint(loop):
        run_training(settings)
    stats = run_training(settings)
    assert stats["resumed_after_epoch"] == 2
    assert history(home / "resumed") == dro
    ours, theirs = (
        (home / name / "checkpoint/model.safetensors").read_bytes() for name in ("resumed", "dro")
    )
    assert ours == theirs


def test_group_dro_with_one_domain_of_each_kind_is_plain_training(home, tmp_path, monkeypatch):
    """Then all weights are 1: the loss is the mean of the ID and the OOD molecules' own."""
    from pipeline.training import training_roles

    one = lambda molecules, *_: np.zeros(molecules.num_rows, int)  # noqa: E731
    halves = lambda clusters, rng: np.arange(len(clusters)) % 5 == 0  # noqa: E731
    monkeypatch.setattr(training_roles, "_clusters", one)
    monkeypatch.setattr(training_roles, "_validating", halves)
    # As many of each kind, so that no batch fills up one of them.
    write_table(tmp_path / "training.csv", smiles=moses()[:100])
    write_table(tmp_path / "ood.csv", smiles=hiv()[:80])
    weights = []
    for name in ("none", "dro"):
        settings = train_settings(tmp_path, name, **{**DRO, "group_weights": name, "dropout": 0.0})
        run_training(settings)
        weights.append([float(line[1]) for line in history(tmp_path / name)[1:]])
    np.testing.assert_allclose(*weights, rtol=1e-4)


def test_group_dro_needs_domains_and_rows_in_memory(home, tmp_path):
    with pytest.raises(InputError, match="--group_weights dro.*--resident_gb"):
        run_training(train_settings(home, "streamed", **DRO, resident_gb=0.0))
    splits = ["train", "iid_val", "iid_test", "ood_val", "ood_test"]
    smiles = [*moses()[:60], *hiv()[:40]]
    rows = [splits[i % 3] if i < 60 else splits[3 + i % 2] for i in range(100)]
    file = write_table(tmp_path / "split.csv", smiles=smiles, split=rows)
    given = {"id_file": None, "ood_file": None, "data_file": str(file), "split_column": "split"}
    with pytest.raises(InputError, match="id_train has none; name their column by --domain_col"):
        run_training(train_settings(home, "split", **DRO, **given, ood_val_by="molecule"))


def test_the_defaults_of_detectors_are_the_papers():
    found = DetectorSettings()
    assert (found.knn_k, found.lof_neighbours, found.odin_temperature) == (50, 20, 1000)
    assert (found.odin_epsilon, found.mc_passes, found.property_dropout) == (0.0014, 20, 0.5)
    assert (found.property_lr, found.property_weight_decay, found.property_patience) == (
        0.01, 5e-4, 30,
    )  # fmt: skip
