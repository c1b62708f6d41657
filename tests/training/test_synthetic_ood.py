"""--ood synthetic: what training makes of it, what it leaves alone, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from jobs.train import tell_training
from pipeline.detectors.feature_space import FeatureSpace
from pipeline.detectors.heads.energy_head import energies_of
from pipeline.encoding.views import EncodedViews
from pipeline.evaluation.audit import WITHOUT_OOD
from pipeline.generation import synthetic
from pipeline.generation.settings import ShellSettings
from pipeline.molecules.rejected import REJECTED
from pipeline.runtime.errors import InputError
from pipeline.training import synthetic_ood
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from pipeline.training.features import features_to_train_on
from pipeline.training.fitting import CANDIDATES
from pipeline.training.run import check_training, run_training
from pipeline.training.synthetic_ood import BY_FINGERPRINTS, SyntheticOod
from pipeline.training.worker import loop
from pipeline.trust.training import train_and_audit
from tests.made_sets import moses, train_settings, write_table
from tests.scoring.test_every_detector import described
from tests.stopped import stopped_at_a_checkpoint
from tests.training.synthetic import synthetic as stored_features

VIEWS = "ecfp,descriptors"
SMALL = ShellSettings(width=16, batch_size=32, steps=30, sampling_steps=10)


@pytest.fixture(scope="module")
def home(ray_session, tmp_path_factory) -> Path:
    """A training set with enough validation molecules, and small generators."""
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("synthetic_ood")
    write_table(folder / "training.csv", smiles=moses())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_ood, "ShellSettings", lambda: SMALL)
        yield folder


def settings(home: Path, name: str, **changes):
    usual = {"ood": "synthetic", "ood_file": None, "ood_size": 60, "views": VIEWS, "epochs": 4}
    return train_settings(home, name, **{**usual, **changes})


@pytest.fixture(scope="module")
def auto(home) -> tuple[Path, dict]:
    """A training by --detector auto, and its statistics."""
    return home / "auto", train_and_audit(settings(home, "auto", detector="auto"))


# --- what is made of it -------------------------------------------------------------------------


def test_detectors_are_chosen_by_synthetic_validation(auto):
    """The kept one's AUROC, by the checkpoint's own scores of what was kept."""
    folder, stats = auto
    tried = stats["chosen_by_validation_auroc"]
    assert list(tried) == [name for name in CANDIDATES if name not in BY_FINGERPRINTS]
    assert set(stats["left_out"]) == set(BY_FINGERPRINTS)
    checkpoint = load_checkpoint(str(folder / "checkpoint"))
    assert checkpoint.name == max(tried, key=tried.get)
    made = pq.read_table(folder / synthetic.FILE).to_pylist()
    rows = np.array([row["features"] for row in made if row["role"] == "validation"], np.float32)
    inside = checkpoint.space.inputs(described(checkpoint.of_role("id_val")["smiles"].to_pylist()))
    blocks = inside.blocks
    outside = SyntheticOod({"ood_val": rows}, blocks, {}).inputs("ood_val")
    if checkpoint.head is None:
        scores = [checkpoint.detector.scores(each) for each in (inside, outside)]
    else:
        scores = [energies_of(checkpoint.head, each.features) for each in (inside, outside)]
    is_ood = np.repeat([0, 1], [len(each) for each in scores])
    area = roc_auc_score(is_ood, np.concatenate(scores))
    assert area == pytest.approx(stats["best_val_auroc"], abs=1e-6)


def test_statistics_tell_what_was_made_and_why_there_is_no_audit(auto, capsys):
    folder, stats = auto
    made = stats["synthetic_ood"]
    assert made["train"] + made["validation"] + made["shortfall"] == made["asked"] == 60
    assert json.loads((folder / "training_stats.json").read_text()) == stats
    assert stats["audit"] == {"not_made": WITHOUT_OOD}
    roles = set(load_checkpoint(str(folder / "checkpoint")).molecules["role"].to_pylist())
    assert roles == set(stats["molecules"]) == {"id_train", "id_val", "id_cal"}
    tell_training(stats, str(folder))
    told = capsys.readouterr().out
    assert f"OOD features: {made['train']} to train, {made['validation']} to validate" in told
    assert f"not made: {WITHOUT_OOD}" in told


def test_no_calibration_molecule_has_a_part_in_it(auto, home, monkeypatch):
    """The generator learns from id_train, and id_val sets the shell: as a checkpoint has them."""
    given = []

    def stop(*arguments):
        given.extend(arguments)
        raise InterruptedError

    monkeypatch.setattr(synthetic, "synthetic_ood", stop)
    with pytest.raises(InterruptedError):
        run_training(settings(home, "given"))
    checkpoint = load_checkpoint(str(auto[0] / "checkpoint"))
    features = {
        role: checkpoint.space.inputs(described(checkpoint.of_role(role)["smiles"].to_pylist()))
        for role in ("id_train", "id_val", "id_cal")
    }
    for found, role in zip(given, ("id_train", "id_val")):
        np.testing.assert_allclose(found, features[role].features, atol=1e-5)
    assert len(features["id_cal"]) == 40


@pytest.mark.parametrize("plain", [True, False])
def test_a_head_sees_synthetic_rows_as_it_sees_molecules(home, tmp_path, plain):
    """Standardised: either in the table or, of an encoder's features, by the head."""
    molecules, encoded = stored_features(tmp_path)
    real = molecules.filter(pa.compute.starts_with(molecules["role"], "id"))
    views = EncodedViews(real, REJECTED.empty_table(), encoded, {"minimol": encoded})
    rng = np.random.default_rng(0)
    made = {role: rng.normal(size=(9, 16)).astype(np.float32) for role in ("ood_train", "ood_val")}
    ood = SyntheticOod(made, {"minimol": slice(0, 16)}, {})
    raw = encoded.features.read_features(real["key"].to_pylist())
    space = FeatureSpace.fit(["minimol"], views_of(raw), 0)
    if not plain:
        patched = type("Space", (), {"plain": None, "views": ("minimol",), "inputs": space.inputs})
        space, standard = patched(), None
    else:
        standard = space.plain
    table = features_to_train_on(real, views, space, str(tmp_path / "views"), 0, ood)
    for role in made:
        assert all(len(key) == 32 for key in ood.keys[role])
        found = table.read_features(ood.keys[role])
        found = found if standard is None else standard(found)
        np.testing.assert_allclose(found, made[role], atol=1e-5)
    found = table.read_features(real["key"].to_pylist())
    np.testing.assert_allclose(found, raw if plain else space.inputs(views_of(raw)).features)
    other = SyntheticOod({role: rows + 1 for role, rows in made.items()}, ood.blocks, {})
    assert not set(sum(ood.keys.values(), [])) & set(sum(other.keys.values(), []))


def views_of(features: np.ndarray):
    from pipeline.detectors.feature_space import Described

    return Described({"minimol": features}, ["C"] * len(features))


def test_a_stopped_head_goes_on_with_the_same_synthetic_rows(home, monkeypatch):
    heads = {"detector": "bce", "checkpoint_every": 2, "views": "descriptors", "dropout": 0.1}

    with stopped_at_a_checkpoint(loop):
        run_training(settings(home, "stopped", **heads))
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "fit_generator", None)  # what was drawn is taken over
        stats = run_training(settings(home, "stopped", **heads))
    whole = run_training(settings(home, "whole", **heads))
    assert (stats["resumed_after_epoch"], whole["resumed_after_epoch"]) == (2, 0)
    assert stats["best_val_auroc"] == whole["best_val_auroc"]
    ours, theirs = (
        (home / name / "checkpoint/model.safetensors").read_bytes() for name in ("stopped", "whole")
    )
    assert ours == theirs
    assert not list((home / "stopped/.ray_train").glob("*/*"))


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"views": "ecfp,distances"}, "--views distances does not go with --ood synthetic"),
        ({"detector": "tanimoto"}, "--detector tanimoto does not go with --ood synthetic.*bce"),
        ({"detector": "distance_lr"}, "--detector distance_lr does not go with"),
        (
            {"views": "unimol", "finetune_encoder": True, "detector": "dpo"},
            "--finetune_encoder does not go with --ood synthetic",
        ),
        ({"group_weights": "dro"}, "--group_weights dro does not go with --ood synthetic"),
        ({"ood_size": 19}, "--ood_size 19: with --ood synthetic at least 20"),
        ({"ood_file": "ood.csv"}, "--ood_file does nothing with --ood synthetic"),
        ({"library": "library.csv"}, "--library does nothing with --ood synthetic"),
        ({"id_file": None, "data_file": "split.csv"}, "--ood does nothing without --id_file"),
    ],
)
def test_what_needs_molecules_is_refused_before_any_work(home, changes, told):
    with pytest.raises(InputError, match=told) as error:
        check_training(settings(home, "unused", **changes))
    assert "\n" not in str(error.value)
    assert not (home / "unused").exists()


def test_a_missing_package_is_told_before_any_work(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"pip install 'molsieve\[generation\]'"):
        check_training(settings(home, "unused"))


def test_a_training_set_that_sets_no_shell_is_told(home, tmp_path):
    file = write_table(tmp_path / "few.csv", smiles=moses()[:60])
    with pytest.raises(InputError, match="need at least 19; give a larger training set") as error:
        run_training(settings(home, "few", id_file=str(file), views="descriptors"))
    assert "\n" not in str(error.value)
