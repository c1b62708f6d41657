"""Checkpoints: found where they should be, loaded whole or not at all, never run as code."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.encoders import load_encoder
from pipeline.encoders.unimol import weights as module
from pipeline.encoders.unimol.model import UniMol, UniMolConfig
from pipeline.encoders.unimol.published_format import load_model, save_checkpoint
from pipeline.encoders.unimol.weights import ALL_HYDROGENS, NO_HYDROGENS, resolve_weights
from pipeline.runtime.errors import InputError
from tests.conftest import SMALL
from tests.pickled_code import Bomb
from tests.reference import random_model, to_unimol_tools_order

WATER = [(["O"], np.zeros((1, 3)))]
ETHANOL = [(["C", "C", "O"], np.array([[0, 0, 0], [1.5, 0, 0], [2, 1.4, 0]]))]


def load(path: Path, **settings):
    return load_encoder("unimol", weights=str(path), device="cpu", **settings)


def edited(source: Path, target: Path, edit) -> Path:
    """A copy of a checkpoint after `edit` changed it."""
    checkpoint = torch.load(source, weights_only=True)
    edit(checkpoint)
    torch.save(checkpoint, target)
    return target


@pytest.fixture
def broken(small_weights, tmp_path):
    """A function that edits a copy of the small checkpoint and gives the error it causes."""

    def error_of(edit) -> str:
        path = edited(small_weights, tmp_path / "broken.pt", edit)
        with pytest.raises(InputError) as raised:
            load(path)
        assert str(path) in str(raised.value)
        return str(raised.value)

    return error_of


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder that UNIMOL_WEIGHT_DIR names."""
    path = tmp_path / "folder"
    path.mkdir()
    monkeypatch.setenv("UNIMOL_WEIGHT_DIR", str(path))
    return path


@pytest.fixture
def hub(monkeypatch) -> list[str]:
    """huggingface_hub that "downloads" three bytes; the names it was asked for."""
    asked = []

    def download(repository, name, local_dir, **_):
        asked.append(f"{repository}/{name}")
        Path(local_dir).mkdir(parents=True, exist_ok=True)
        (Path(local_dir) / name).write_bytes(b"abc")
        return str(Path(local_dir) / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return asked


def test_every_tensor_is_loaded_as_written(small_weights):
    written = torch.load(small_weights, weights_only=True)["model"]
    model, _ = load_model(resolve_weights(str(small_weights)))
    loaded = model.state_dict()
    assert loaded.keys() == written.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in written.items())


def test_a_missing_tensor_is_named(broken):
    message = broken(lambda c: c["model"].pop("encoder.layers.1.fc2.bias"))
    assert "1 missing: encoder.layers.1.fc2.bias" in message
    assert "unexpected" not in message and "misshapen" not in message


def test_an_unexpected_layer_is_named(broken):
    def add_layer(checkpoint):
        model = checkpoint["model"]
        for name in [n for n in model if n.startswith("encoder.layers.1.")]:
            model[name.replace(".1.", ".2.", 1)] = model[name]

    message = broken(add_layer)
    assert "12 unexpected: encoder.layers.2.fc1.bias" in message and "missing" not in message


def test_a_misshapen_tensor_is_named_with_both_shapes(broken):
    message = broken(lambda c: c["model"].update({"gbf.mul.weight": torch.ones(900, 1)}))
    assert "1 misshapen: gbf.mul.weight (900, 1) instead of (961, 1)" in message


def test_all_kinds_of_misfit_are_listed_at_once(broken):
    def spoil(checkpoint):
        model = checkpoint["model"]
        model["encoder.emb_layer_norm.wait"] = model.pop("encoder.emb_layer_norm.weight")
        model["embed_tokens.weight"] = model["embed_tokens.weight"][:30]

    message = broken(spoil)
    total = len(UniMol(SMALL, 0).state_dict())
    assert f"{total - 2} of {total} tensors fit" in message
    assert "1 missing: encoder.emb_layer_norm.weight" in message
    assert "1 unexpected: encoder.emb_layer_norm.wait" in message
    assert "1 misshapen: embed_tokens.weight (30, 64) instead of (31, 64)" in message


def published_shape(path: Path, layers: int, args: dict | None) -> Path:
    """A file with tensors of the published shape, of which each is one number on disk."""
    with torch.device("meta"):
        shapes = {
            k: v.shape for k, v in UniMol(UniMolConfig(layers=layers), 0).state_dict().items()
        }
    state = {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}
    torch.save({"model": state} | ({"args": args} if args else {}), path)
    return path


PUBLISHED_ARGS = {
    "encoder_layers": 15,
    "encoder_embed_dim": 512,
    "encoder_ffn_embed_dim": 2048,
    "encoder_attention_heads": 64,
}


@pytest.mark.parametrize("args", [PUBLISHED_ARGS, None], ids=["args", "no args"])
def test_the_published_shape_has_193_tensors_and_needs_its_last_layer(tmp_path, args):
    whole = published_shape(tmp_path / "whole.pt", 15, args)
    model, _ = load_model(resolve_weights(str(whole)), "official")
    assert len(model.state_dict()) == 193 and model.config == UniMolConfig()
    short = published_shape(tmp_path / "short.pt", 14, args)
    with pytest.raises(InputError, match=r"181 of 193 .*12 missing: encoder\.layers\.14\."):
        load_model(resolve_weights(str(short)), "official")


@pytest.mark.parametrize("args", [argparse.Namespace(**PUBLISHED_ARGS), {"arch": "unimol"}])
def test_args_may_be_a_namespace_or_say_nothing_of_sizes(tmp_path, args):
    model, _ = load_model(resolve_weights(str(published_shape(tmp_path / "a.pt", 15, args))))
    assert model.config == UniMolConfig()


def test_sizes_of_other_models_come_from_their_tensors(small_weights, tmp_path):
    without_args = edited(small_weights, tmp_path / "a.pt", lambda c: c.pop("args"))
    model, _ = load_model(resolve_weights(str(without_args)))
    assert model.config == replace(SMALL, vocabulary=31)
    encoder = load(without_args)
    expected = load(small_weights).encode_conformers(ETHANOL)
    np.testing.assert_array_equal(encoder.encode_conformers(ETHANOL), expected)


def test_heads_of_the_pretraining_are_ignored(small_weights, tmp_path):
    names = ("lm_head.bias", "encoder.final_head_layer_norm.weight", "pair2coord_proj.linear1.bias")
    heads = {name: torch.ones(7) for name in (*names, "dist_head.dense.weight")}
    path = edited(small_weights, tmp_path / "heads.pt", lambda c: c["model"].update(heads))
    expected = load(small_weights).encode_conformers(ETHANOL)
    np.testing.assert_array_equal(load(path).encode_conformers(ETHANOL), expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_not_run(tmp_path, zipped):
    marker, path = tmp_path / "marker", tmp_path / "bomb.pt"
    torch.save({"model": {}, "args": Bomb(marker)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="not safe to load" if zipped else "not a torch"):
        load(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # the file would have done it


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_what_is_no_checkpoint_is_an_input_error(tmp_path, content):
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a torch checkpoint"):
        load(path)


@pytest.mark.parametrize("checkpoint", [{"state": {}}, {"model": [1]}, {"model": {"a": 1}}, [1]])
def test_a_file_without_a_state_dict_is_an_input_error(tmp_path, checkpoint):
    torch.save(checkpoint, tmp_path / "file.pt")
    with pytest.raises(InputError, match="no state dict under the key 'model'"):
        load(tmp_path / "file.pt")


@pytest.mark.parametrize("name", ["absent.pt", "."])
def test_a_path_that_is_no_file_is_an_input_error(tmp_path, name):
    with pytest.raises(InputError, match="no such file; .*mol_pre_no_h_220816.pt.*untrained"):
        load(tmp_path / name)


@pytest.mark.parametrize("setting", [None, NO_HYDROGENS, ALL_HYDROGENS])
def test_published_weights_come_from_the_weight_folder(small_weights, folder, hub, setting):
    copy = folder / (setting or NO_HYDROGENS)
    copy.write_bytes(small_weights.read_bytes())
    encoder = load_encoder("unimol", weights=setting, device="cpu")
    assert encoder.weights.path == copy and not hub
    assert encoder.weights.keeps_hydrogens == (setting == ALL_HYDROGENS)
    assert encoder.weights.sha256 == hashlib.sha256(small_weights.read_bytes()).hexdigest()


def test_without_network_the_error_names_three_ways_out(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(InputError) as raised:
        load_encoder("unimol", device="cpu")
    for way in ("(1) --weights PATH", f"(2) put {NO_HYDROGENS} into {folder}", "(3) run once with"):
        assert way in str(raised.value)
    assert "UNIMOL_WEIGHT_DIR" in str(raised.value) and "--weights mini" in str(raised.value)


def test_a_download_with_the_wrong_sha256_is_deleted(folder, hub):
    with pytest.raises(InputError, match="wrong SHA-256 .*deleted"):
        resolve_weights(None)
    assert hub and not [path for path in folder.rglob("*") if path.is_file()]


def test_a_download_with_the_right_sha256_lands_under_its_name(folder, hub, monkeypatch):
    digest = hashlib.sha256(b"abc").hexdigest()
    monkeypatch.setitem(module.PUBLISHED_SHA256, NO_HYDROGENS, digest)
    found = resolve_weights(None)
    assert (found, found.sha256) == ((folder / NO_HYDROGENS, NO_HYDROGENS), digest)
    assert (folder / NO_HYDROGENS).read_bytes() == b"abc"
    resolve_weights(None)
    assert hub == [f"dptech/Uni-Mol-Models/{NO_HYDROGENS}"]  # the second time it was there


@pytest.mark.parametrize("right", [True, False])
def test_the_hub_says_which_sha256_the_sibling_must_have(folder, hub, monkeypatch, right):
    etag = hashlib.sha256(b"abc" if right else b"abd").hexdigest()
    metadata = SimpleNamespace(etag=etag)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *a, **k: metadata)
    if right:
        assert resolve_weights(ALL_HYDROGENS).path == folder / ALL_HYDROGENS
    else:
        with pytest.raises(InputError, match="wrong SHA-256"):
            resolve_weights(ALL_HYDROGENS)


def test_the_token_order_is_found_by_the_zero_row(small_weights, tmp_path, caplog):
    reordered = to_unimol_tools_order(small_weights, tmp_path / "reordered.pt")
    official, tools = load(small_weights), load(reordered)
    assert (official.vocabulary.pad, tools.vocabulary.pad) == (0, 2)
    assert not caplog.records
    expected = official.encode_conformers(ETHANOL + WATER)
    np.testing.assert_allclose(tools.encode_conformers(ETHANOL + WATER), expected, atol=1e-6)
    forced = load(small_weights, token_order="unimol_tools").encode_conformers(ETHANOL)
    assert np.abs(forced - expected[:1]).max() > 1e-3


def test_an_unknown_token_order_is_warned_of(tmp_path, caplog):
    model = random_model(SMALL)
    model.embed_tokens.weight[0] = 1.0
    save_checkpoint(model, tmp_path / "no_zero_row.pt")
    assert load(tmp_path / "no_zero_row.pt").vocabulary.pad == 2
    assert "token order is unknown" in caplog.text


def test_untrained_weights_are_the_same_every_time_and_say_so():
    first, second = (load_encoder("unimol", weights="untrained", device="cpu") for _ in range(2))
    features = first.encode_conformers(ETHANOL)
    assert features.shape == (1, 512) and first.weights.label == "untrained"
    np.testing.assert_array_equal(second.encode_conformers(ETHANOL), features)
    assert np.abs(first.encode_conformers(WATER) - features).max() > 1e-3
    assert first.identity(weights="untrained")["weights"] == "untrained"


@pytest.mark.parametrize("precision", ["fp64", "int8", "FP32", ""])
def test_precision_is_auto_or_one_of_three(small_weights, precision):
    with pytest.raises(ValueError, match="expected auto or one of fp32, bf16, fp16"):
        load(small_weights, precision=precision)
