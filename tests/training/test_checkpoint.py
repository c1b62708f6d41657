"""The checkpoint folder: it loads without pickle, and anything else is a plain error."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import safetensors.torch
import torch

from jobs import evaluate
from jobs.cli import main
from pipeline.detectors.heads.energy_head import EnergyHead
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.runtime.errors import InputError
from pipeline.training.checkpoints.checkpoint import MODEL, load_checkpoint, save_checkpoint
from pipeline.training.checkpoints.checkpoint_encoder import settings_of

FILES = ("config.json", "model.safetensors", "metrics.json", "training_molecules.parquet")
MOLECULES = pa.table({"id": ["a"], "key": ["0" * 32], "role": ["id_train"]})


@pytest.fixture
def head() -> EnergyHead:
    torch.manual_seed(0)
    return EnergyHead(16, hidden_dim=8)


@pytest.fixture
def folder(head, tmp_path) -> Path:
    config = {
        "encoder": {"encoder": "synthetic", "weights": "none"},
        "features_key": "abc",
        "head": {"width": 16, "hidden_dim": 8, "dropout": 0.1},
        "settings": {"data_file": "unused", "loss": "dpo"},
    }
    path = tmp_path / "checkpoint"
    files = {MODEL: safetensors.torch.save(head.state_dict())}
    save_checkpoint(str(path), files, config, {"best_val_auroc": 0.75}, MOLECULES)
    return path


def test_the_training_runs_fragments_are_kept_unless_told_otherwise(folder, caplog):
    old = load_checkpoint(str(folder))
    new = replace(old, settings={**old.settings, "fragments": "largest"})
    use = EvaluateSettings(checkpoint=str(folder))
    assert settings_of(old, use).fragments == "keep"  # of a version without the setting
    assert settings_of(new, use, fragments=None).fragments == "largest"
    assert "trained with" not in caplog.text
    assert settings_of(new, use, fragments="keep").fragments == "keep"
    assert "trained with --fragments largest" in caplog.text


def test_the_folder_holds_json_safetensors_and_parquet_only(folder):
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert json.loads((folder / "metrics.json").read_text()) == {"best_val_auroc": 0.75}


def test_loading_gives_back_what_was_saved_without_unpickling(folder, head, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a pickle was read")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    loaded = load_checkpoint(f"{folder}/")
    x = torch.randn(3, 16)
    assert torch.equal(loaded.head(x), head.eval()(x)) and not loaded.head.training
    assert loaded.encoder == {"encoder": "synthetic", "weights": "none"}
    assert loaded.features_key == "abc" and loaded.settings["loss"] == "dpo"
    assert loaded.molecules.equals(MOLECULES)


@pytest.mark.parametrize("name", [name for name in FILES if name != "metrics.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"no {name}"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x81\xff", b"{}", b"[]", b"null"])
@pytest.mark.parametrize("name", [name for name in FILES if name != "metrics.json"])
def test_a_corrupted_file_is_an_input_error(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "training_molecules.parquet"])
def test_a_truncated_file_is_an_input_error(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(str(folder))


def test_weights_of_another_shape_are_an_input_error(folder):
    config = json.loads((folder / "config.json").read_text())
    config["head"]["width"] = 32
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="not a checkpoint"):
        load_checkpoint(str(folder))


def evaluate_error(capsys, checkpoint: Path) -> str:
    """The one line on standard error with which jobs.evaluate refuses a checkpoint."""
    argv = ["--checkpoint", str(checkpoint)]
    assert main(EvaluateSettings, evaluate.evaluate, "evaluate", argv) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("jobs.evaluate: error: --checkpoint ")
    return line


def test_evaluate_tells_a_corrupted_checkpoint_in_one_line(folder, capsys):
    (folder / "model.safetensors").write_bytes(b"garbage")
    assert "not a checkpoint" in evaluate_error(capsys, folder)


def test_evaluate_tells_an_empty_folder_in_one_line(tmp_path, capsys):
    assert "no config.json" in evaluate_error(capsys, tmp_path)


def test_evaluate_tells_a_file_given_for_the_folder_in_one_line(folder, capsys):
    assert "folder" in evaluate_error(capsys, folder / "model.safetensors")
