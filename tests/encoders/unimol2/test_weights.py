"""Uni-Mol2's weights: found by name, in a folder, or not; loaded whole, never run as code."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.encoders.unimol2.encoder import UniMol2Encoder
from pipeline.encoders.unimol2.model import load_model
from pipeline.encoders.unimol2.weights import PUBLISHED, resolve_weights
from pipeline.runtime.errors import InputError
from tests.pickled_code import Bomb


def load(path: Path, **settings):
    return UniMol2Encoder(weights=str(path), device="cpu", precision="fp32", **settings)


@pytest.fixture
def folder(deeper, tmp_path) -> Path:
    """A folder of weights with the published file of one size."""
    target = tmp_path / PUBLISHED["164m"]
    target.parent.mkdir(parents=True)
    shutil.copy(deeper, target)
    return tmp_path


def test_published_weights_are_found_by_size(deeper, folder, monkeypatch):
    file = folder / PUBLISHED["164m"]
    for given in (str(folder), str(file.parents[1]), str(file.parent)):
        assert resolve_weights(given, "164m").path == file
    monkeypatch.setenv("UNIMOL_WEIGHT_DIR", str(folder))
    for given in (None, PUBLISHED["164m"]):
        found = resolve_weights(given, "164m")
        assert (found.path, found.label) == (file, "unimol2 164m")
    identity = UniMol2Encoder.identity(model_size="164m", precision="fp32")
    assert identity["weights_sha256"] == resolve_weights(str(deeper), "164m").sha256
    assert (identity["model_size"], identity["hydrogens"]) == ("164m", False)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("absent.pt", "no such file; for unimol2 give .*modelzoo/84M/checkpoint.pt"),
        (PUBLISHED["310m"], "is of another size than --model_size 84m"),
        (".", "the folder holds no modelzoo/84M/checkpoint.pt"),
    ],
)
def test_what_is_not_there_is_told(tmp_path, monkeypatch, weights, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=told):
        resolve_weights(weights, "84m")


def test_a_folder_of_another_size_is_refused(folder, monkeypatch):
    with pytest.raises(InputError, match="another size; with it give --model_size 164m"):
        resolve_weights(str(folder / "modelzoo/164M"), "84m")
    monkeypatch.chdir(folder / "modelzoo/164M")
    with pytest.raises(InputError, match="another size; with it give --model_size 164m"):
        resolve_weights(".", "84m")
    assert resolve_weights(".", "164m").label == "unimol2 164m"


def test_a_checkpoint_of_another_depth_is_refused(checkpoint, deeper):
    told = r"84m has 2 layers, and there are more in the file \(encoder.layers.2.*--model_size"
    for use in (load, lambda path: UniMol2Encoder.identity(weights=str(path))):
        with pytest.raises(InputError, match=told):
            use(deeper)
    with pytest.raises(InputError, match="of --model_size 164m; .* missing: encoder.layers.2"):
        UniMol2Encoder.identity(weights=str(checkpoint), model_size="164m")


def test_without_network_the_error_names_three_ways_out(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setenv("UNIMOL_WEIGHT_DIR", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    with pytest.raises(InputError) as raised:
        UniMol2Encoder.identity(model_size="570m")
    for way in ("(1) --weights PATH", "(2) put modelzoo/570M/checkpoint.pt into", "(3) run once"):
        assert way in str(raised.value)
    assert "huggingface.co/dptech/Uni-Mol2" in str(raised.value)
    assert "--weights untrained" in str(raised.value)


def test_a_download_lands_under_its_name(tmp_path, monkeypatch):
    def download(repository, name, local_dir, **_):
        assert repository == "dptech/Uni-Mol2"
        target = Path(local_dir) / name
        target.parent.mkdir(parents=True)
        target.write_bytes(b"abc")
        return str(target)

    etag = hashlib.sha256(b"abc").hexdigest()
    monkeypatch.setenv("UNIMOL_WEIGHT_DIR", str(tmp_path))
    monkeypatch.setattr(
        "huggingface_hub.get_hf_file_metadata", lambda *a, **k: SimpleNamespace(etag=etag)
    )
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert resolve_weights(None, "84m").path == tmp_path / PUBLISHED["84m"]


def edited(source: Path, target: Path, edit) -> Path:
    checkpoint = torch.load(source, weights_only=True)
    edit(checkpoint["model"])
    torch.save(checkpoint, target)
    return target


def test_missing_and_misshapen_tensors_are_told(checkpoint, tmp_path):
    def spoil(model):
        del model["encoder.layers.1.ffn.linear_1.bias"]
        model["embed_tokens.weight"] = model["embed_tokens.weight"][:, :40]

    with pytest.raises(InputError, match="84m; 1 missing: encoder.layers.1.ffn.*1 misshapen: emb"):
        load(edited(checkpoint, tmp_path / "a.pt", spoil))


def test_heads_are_ignored_and_what_nobody_knows_is_told(checkpoint, tmp_path, caplog):
    def without_head(model):  # and without a buffer, which the class makes itself
        model["lm_head.bias"] = torch.ones(3)
        del model["se3_invariant_kernel.gaussian.mean"]

    path = tmp_path / "a.pt"
    load(edited(checkpoint, path, without_head))
    assert caplog.text == ""
    load(edited(checkpoint, path, lambda m: m.update({"encoder.novelty": torch.ones(3)})))
    assert "1 tensors are not unimol_tools': encoder.novelty" in caplog.text


def test_pickled_code_is_refused_and_not_run(small_size, tmp_path):
    torch.save({"model": {}, "args": Bomb(tmp_path / "marker")}, tmp_path / "bomb.pt")
    with pytest.raises(InputError, match="not safe to load"):
        load(tmp_path / "bomb.pt")
    assert not (tmp_path / "marker").exists()
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(InputError, match="not a torch checkpoint"):
        load(tmp_path / "text.pt")


def test_untrained_weights_are_the_same_every_time_and_tell_molecules_apart(small_size):
    first, second = (load(Path("untrained")) for _ in range(2))
    features = first.encode_smiles(["CCO", "c1ccccc1", "CCN"])
    np.testing.assert_array_equal(second.encode_smiles(["CCO", "c1ccccc1", "CCN"]), features)
    assert np.abs(features[0] - features[2]).max() > 1e-3
    assert np.isfinite(features).all()
    model = load_model(resolve_weights("untrained", "84m"), "84m")
    assert not any(p.abs().max() > 100 for p in model.parameters())  # none left uninitialised


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model_size": "1b"}, "--model_size 1b: Uni-Mol2 was published in 84m, .*1.1B"),
        ({"finetuned": "folder"}, "--finetuned: unimol2 cannot be finetuned"),
        ({"token_order": "official"}, "--token_order: Uni-Mol2's tokens are atomic numbers"),
    ],
)
def test_settings_of_no_use_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        UniMol2Encoder.identity(weights="untrained", **settings)
    with pytest.raises(InputError, match=told):
        UniMol2Encoder(weights="untrained", **settings)
