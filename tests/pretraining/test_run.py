"""jobs.pretrain: losses fall, the file is one that unimol_tools reads, runs can be resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import ray.train
import torch

from jobs.pretrain import pretrain
from pipeline.encoders import load_encoder
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoders.unimol.model import UniMolConfig
from pipeline.encoding.plan import plan_encoding
from pipeline.encoding.stored_conformers import embed
from pipeline.pretraining.molecules.loop import PretrainingState, PretrainJob
from pipeline.pretraining.run import run_pretraining
from pipeline.pretraining.settings import PretrainSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.train.learning_rate import linear_schedule
from tests.encoding.test_stored_features import table_of
from tests.reference import unimol_tools_features

BAD = ["", "C1CC"]
SIZES = {"layers": 2, "width": 32, "ffn_width": 64, "heads": 4}


@pytest.fixture(scope="module")
def home(ray_session, in_process, moses_smiles, hiv_smiles, tmp_path_factory) -> Path:
    """A folder with a table of 60 molecules, two rows that are none, and one that repeats."""
    folder = tmp_path_factory.mktemp("pretrain")
    rows = [*moses_smiles[:40], *hiv_smiles[:20], *BAD, moses_smiles[0]]
    (folder / "molecules.csv").write_text("\n".join(["smiles", *(f'"{row}"' for row in rows)]))
    return folder


def settings_of(home: Path, output: str, **changes) -> PretrainSettings:
    return PretrainSettings(
        **{
            **SIZES, "data_file": str(home / "molecules.csv"), "cache_root": str(home / "store"),
            "output_dir": str(home / output), "device": "cpu", "precision": "fp32",
            "epochs": 10, "batch_size": 16, "lr": 3e-3, "dropout": 0.0, "holdout_size": 20,
            "checkpoint_every": 12, "conformer_method": "etkdg", **changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def one_worker(home) -> SimpleNamespace:
    settings = settings_of(home, "one")
    return SimpleNamespace(stats=run_pretraining(settings), folder=home / "one", settings=settings)


def test_held_out_losses_fall_and_every_row_is_accounted_for(one_worker):
    stats = one_worker.stats
    assert (stats["rows_in"], stats["rows_kept"], stats["rejected"]) == (63, 61, 2)
    assert (stats["molecules_trained_on"], stats["molecules_held_out"]) == (40, 20)
    rejected = pq.read_table(one_worker.folder / "rejected.parquet")
    assert rejected["stage"].to_pylist() == ["parse", "parse"]
    for name in ("token", "distance"):
        before, after = (stats[when][f"heldout_{name}"] for when in ("before", "after"))
        assert after < 0.8 * before, name
    written = json.loads((one_worker.folder / "pretraining_stats.json").read_text())
    assert written["after"] == stats["after"] and written["settings"]["width"] == 32


def test_the_curves_have_a_line_a_checkpoint_and_nothing_is_left_behind(one_worker):
    curves = pyarrow.csv.read_csv(one_worker.folder / "pretraining_curves.csv")
    assert curves["step"].to_pylist() == [0, 12, 24, 30]
    assert curves["heldout_loss"][-1].as_py() == one_worker.stats["after"]["heldout_loss"]
    picture = (one_worker.folder / "pretraining_curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert not list((one_worker.folder / ".ray_train").glob("*/checkpoint_*"))


def test_its_features_equal_those_of_unimol_tools_on_the_same_file(one_worker, moses_smiles):
    weights = one_worker.folder / "model.pt"
    expected = unimol_tools_features(weights, moses_smiles[:12], config=UniMolConfig(**SIZES))
    encoder = load_encoder("unimol", weights=str(weights), device="cpu", precision="fp32")
    found = encoder.encode_smiles(moses_smiles[:12])
    assert found.shape == (12, 32)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_two_workers_and_one_come_to_the_same_weights(one_worker, home):
    stats = run_pretraining(replace(one_worker.settings, output_dir=str(home / "two"),
                                    num_workers=2))  # fmt: skip
    assert stats["conformers_made"] == 0
    for name, value in one_worker.stats["after"].items():
        assert stats["after"][name] == pytest.approx(value, rel=2e-3, abs=1e-4), name
    mine, theirs = (
        torch.load(folder / "model.pt", weights_only=True)["model"]
        for folder in (home / "two", one_worker.folder)
    )
    for name, tensor in theirs.items():
        assert (mine[name] - tensor).norm() <= 2e-2 * tensor.norm() + 1e-5, name


def test_a_resumed_run_comes_to_the_same_weights(one_worker, monkeypatch, tmp_path):
    monkeypatch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_rank=lambda: 0))
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    settings = replace(one_worker.settings, dropout=0.1, epochs=2)
    table = table_of(["CCO", "c1ccccc1O", "CC(=O)NC", "C1CCCCC1N", "CCOC(=O)C", "OCCN", "CCBr"])
    chosen = EncoderSettings(weights="untrained", device="cpu", cache_root=str(tmp_path))
    made = embed(table, plan_encoding(chosen))
    settings = replace(settings, batch_size=2)
    job = PretrainJob(settings, made.conformers, made.keys[:5], made.keys[5:])
    states = [PretrainingState(job, torch.device("cpu")) for _ in range(2)]
    states[0].run(4)
    torch.save(states[0].content(), tmp_path / "state.pt")
    checkpoint = ray.train.Checkpoint.from_directory(str(tmp_path))
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: checkpoint)
    assert states[1].resume() == 4
    for state in states:
        state.run(state.steps)
    assert states[0].steps == 6
    tensors = states[0].model.state_dict()
    for name, tensor in states[1].model.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def test_the_learning_rate_rises_and_falls_to_nothing():
    factors = [linear_schedule(100, 0.1)(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9] == 1
    assert factors[55] == pytest.approx(0.5) and factors[100] == 0


def test_what_cannot_be_is_told_before_training(home):
    with pytest.raises(InputError, match="--heads 3 does not divide --width 32"):
        settings_of(home, "bad", heads=3)
    with pytest.raises(InputError, match="60 molecules have .*--holdout_size 60"):
        pretrain(settings_of(home, "bad", holdout_size=60))
    with pytest.raises(InputError, match="absent.csv"):
        pretrain(replace(settings_of(home, "bad"), data_file=str(home / "absent.csv")))
