"""Checkpoints of detectors, of heads on views, with a second one, and of earlier versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from pipeline.detectors.feature_space import Described
from pipeline.detectors.heads.energy_head import EnergyHead, energies_of
from pipeline.runtime.errors import InputError
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from pipeline.training.run import run_training
from tests.made_sets import hiv, moses, train_settings, write_set, write_table
from tests.scoring.test_every_detector import described

NEW = [*moses()[150:160], *hiv()[150:160]]
WRONG = [b"", b"garbage", b"\x80\x81\xff", b"{}", b"[]", b"null", b'{"detector": "knn"}']


@pytest.fixture(scope="module")
def home(ray_session, tmp_path_factory) -> Path:
    """Checkpoints of a head on views, of a detector, and of one with `cross`."""
    home = write_set(tmp_path_factory.mktemp("formats"))
    write_table(home / "library.csv", smiles=hiv()[:80])
    run_training(train_settings(home, "head", detector="dpo"))
    run_training(train_settings(home, "detector", detector="distance_lr"))
    library = {"ood": "library", "ood_file": None, "library": str(home / "library.csv")}
    run_training(train_settings(home, "cross", detector="oe_knn", knn_k=2, **library))
    return home


def test_a_second_checkpoint_is_trained_with_the_other_molecules(home):
    checkpoint = load_checkpoint(f"{home}/cross/checkpoint")
    cross = checkpoint.cross
    assert cross.cross is None and cross.name == checkpoint.name == "oe_knn"
    sides = [set(each.of_role("ood_train", "ood_val")["key"].to_pylist())
             for each in (checkpoint, cross)]  # fmt: skip
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 80
    inside = [each.of_role("id_train", "id_val", "id_cal") for each in (checkpoint, cross)]
    assert inside[0].equals(inside[1])
    first, second = (each.scores(described(NEW)) for each in (checkpoint, cross))
    assert np.isfinite(first).all() and (first != second).any()
    assert load_checkpoint(f"{home}/detector/checkpoint").cross is None
    assert checkpoint.sha256 != cross.sha256


def test_the_digest_is_of_all_that_scores_and_neighbours_come_from(home, tmp_path):
    for name, file in (
        ("head", "model.safetensors"), ("head", "feature_space.safetensors"),
        ("head", "training_molecules.parquet"), ("cross", "cross/detector.safetensors"),
    ):  # fmt: skip
        folder = tmp_path / file.replace("/", "-") / name
        shutil.copytree(home / name / "checkpoint", folder)
        before = load_checkpoint(str(folder)).sha256
        path = folder / file
        if path.suffix == ".parquet":
            pq.write_table(pq.read_table(path).slice(1), path)
        else:
            arrays = safetensors.torch.load_file(path)
            largest = max(arrays, key=lambda key: arrays[key].numel())
            arrays[largest] = arrays[largest] + 1
            safetensors.torch.save_file(arrays, path)
        assert load_checkpoint(str(folder)).sha256 != before


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.name != "metrics.json")


@pytest.mark.parametrize("name", ["head", "detector", "cross"])
def test_damaged_and_missing_files_are_told_in_one_line(home, name):
    folder = home / name / "checkpoint"
    assert not [p for p in folder.rglob("*") if p.suffix not in (".json", ".safetensors",
                                                                 ".parquet", "")]  # fmt: skip
    for path in files_of(folder):
        if path.is_dir():
            continue
        whole = path.read_bytes()
        contents = [None, *WRONG, whole[: len(whole) // 2]]
        for content in contents:
            path.unlink() if content is None else path.write_bytes(content)
            with pytest.raises(InputError) as error:
                load_checkpoint(str(folder))
            assert "\n" not in str(error.value)
            assert "checkpoint" in str(error.value)  # which folder it is
        path.write_bytes(whole)
    assert load_checkpoint(str(folder)).name


def test_a_head_of_earlier_versions_loads_and_gives_the_same_energies(tmp_path):
    """They had no views, no detector's name, no list of files and no standardisation."""
    torch.manual_seed(0)
    head = EnergyHead(16, hidden_dim=8)
    folder = tmp_path / "old"
    folder.mkdir()
    safetensors.torch.save_file(head.state_dict(), folder / "model.safetensors")
    config = {
        "format": 1, "encoder": {"encoder": "minimol", "weights": "none"}, "features_key": "abc",
        "head": {"width": 16, "hidden_dim": 8, "dropout": 0.1},
        "settings": {"data_file": "unused", "loss": "bce", "data_seed": 42},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    molecules = pa.table({"id": ["a"], "key": ["0" * 32], "smiles": ["C"], "role": ["id_train"]})
    pq.write_table(molecules, folder / "training_molecules.parquet")
    loaded = load_checkpoint(str(folder))
    x = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    found = loaded.scores(Described({"minimol": x}, ["C"] * 5))
    np.testing.assert_array_equal(found, energies_of(head, x).astype(np.float64))
    assert (loaded.name, loaded.space.views, loaded.cross) == ("bce", ("minimol",), None)
    assert loaded.detector is None and not loaded.finetuned
    assert loaded.references.rows(["0" * 32, "1" * 32]).tolist() == [0, -1]
