"""ESM-2's weights: found by name, in a folder, or not; loaded whole, never run as code."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import EsmForMaskedLM, EsmForSequenceClassification

from pipeline.encoders import load_encoder
from pipeline.encoders.esm import weights as module
from pipeline.encoders.esm.encoder import EsmEncoder
from pipeline.encoders.esm.weights import PUBLISHED, resolve_weights
from pipeline.runtime.errors import InputError
from tests.pickled_code import Bomb

NAME = PUBLISHED["35m"]
SEQUENCES = ["MKLVACDE", "GG"]


def features(folder: Path) -> np.ndarray:
    encoder = load_encoder("esm", weights=str(folder), device="cpu", precision="fp32")
    return encoder.encode_sequences(SEQUENCES)


@pytest.fixture
def copied(esm_folder, tmp_path) -> Path:
    return Path(shutil.copytree(esm_folder, tmp_path / "weights" / NAME))


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """Nothing in huggingface_hub's cache, and no network."""

    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setenv("UNIMOL_WEIGHT_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)


def test_a_published_model_is_found_by_name_and_by_size(copied, monkeypatch):
    monkeypatch.setenv("UNIMOL_WEIGHT_DIR", str(copied.parent))
    ways = [(NAME, None), (f"facebook/{NAME}", None), (None, "35m"), (str(copied), None)]
    assert {resolve_weights(*way) for way in ways} == {(copied, NAME)}
    identity = EsmEncoder.identity(weights=NAME, precision="fp32")
    content = (copied / "model.safetensors").read_bytes()
    assert identity["weights_sha256"] == hashlib.sha256(content).hexdigest()
    assert (identity["weights"], identity["precision"]) == (NAME, "fp32")
    edit_config(copied, token_dropout=False)
    assert EsmEncoder.identity(weights=NAME)["config_sha256"] != identity["config_sha256"]


def test_without_network_the_error_names_three_ways_out(no_hub):
    with pytest.raises(InputError) as raised:
        resolve_weights(None, "650m")
    told = str(raised.value)
    for way in ("(1) --weights FOLDER", f"(2) put {PUBLISHED['650m']} into", "(3) run once"):
        assert way in told
    assert f"huggingface.co/facebook/{PUBLISHED['650m']}" in told
    assert "--weights mini-protein" in told and "\n" not in told


def test_a_download_is_verified_and_pickles_come_where_nothing_else_does(
    esm_folder, tmp_path, monkeypatch
):
    asked, cache = [], tmp_path / "cache"
    blobs = cache / "blobs"
    blobs.mkdir(parents=True)

    def download(repository, allow_patterns, local_files_only=False, **_):
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        asked.append((repository, allow_patterns))
        for file in esm_folder.iterdir():
            if any(Path(file.name).match(pattern) for pattern in allow_patterns):
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                content = b"cut" if spoiled else file.read_bytes()
                (blobs / digest).write_bytes(content)
                if not (cache / file.name).exists():
                    (cache / file.name).symlink_to(blobs / digest)
        return str(cache)

    monkeypatch.setenv("UNIMOL_WEIGHT_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    spoiled = True
    with pytest.raises(InputError, match="model.safetensors has the wrong SHA-256 and was deleted"):
        resolve_weights(NAME)
    assert not (cache / "model.safetensors").exists()
    spoiled = False
    assert resolve_weights(NAME) == (cache, NAME)
    assert {repository for repository, _ in asked} == {f"facebook/{NAME}"}
    assert not any("pytorch_model.bin" in patterns for _, patterns in asked)


def test_a_download_that_was_cut_short_is_taken_up_again(esm_folder, tmp_path, monkeypatch):
    whole, cache = sharded(esm_folder, tmp_path / "whole"), tmp_path / "cache"
    shutil.copytree(whole, cache)
    lost = module.weight_files(cache)[1]
    lost.unlink()

    def download(_, local_files_only=False, **__):
        if not local_files_only:
            shutil.copy(whole / lost.name, lost)
        return str(cache)

    monkeypatch.setenv("UNIMOL_WEIGHT_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_weights(NAME) == (cache, NAME) and lost.is_file()


def sharded(esm_folder: Path, folder: Path) -> Path:
    EsmForMaskedLM.from_pretrained(esm_folder).save_pretrained(folder, max_shard_size="20KB")
    return folder


def test_the_files_of_the_identity_are_those_that_transformers_reads(esm_folder, copied, tmp_path):
    """One file comes before an index, and others of like names are nothing to it."""
    right = features(esm_folder)
    spoiled = {name: torch.zeros_like(each) for name, each in
               load_file(copied / "model.safetensors").items()}  # fmt: skip
    for name in ("model.fp16.safetensors", "model-old.safetensors", "a_model.safetensors"):
        save_file(spoiled, copied / name, metadata={"format": "pt"})
    torch.save(spoiled, copied / "pytorch_model.bin")
    shards = sharded(esm_folder, tmp_path / "shards")
    for file in shards.glob("model*"):
        shutil.copy(file, copied)
    assert module.weight_files(copied) == [copied / "model.safetensors"]
    np.testing.assert_array_equal(features(copied), right)
    (copied / "model.safetensors").unlink()
    assert [file.name for file in module.weight_files(copied)] == sorted(
        file.name for file in shards.glob("model-*.safetensors")
    )
    np.testing.assert_array_equal(features(copied), right)
    (copied / "model.safetensors.index.json").unlink()
    assert module.weight_files(copied) == [copied / "pytorch_model.bin"]
    assert not np.array_equal(features(copied), right)


def test_heads_of_other_tasks_are_left_out(esm_folder, tmp_path):
    EsmForSequenceClassification.from_pretrained(esm_folder).save_pretrained(tmp_path / "tuned")
    names = load_file(tmp_path / "tuned/model.safetensors")
    assert any(name.startswith("classifier.") for name in names)
    np.testing.assert_array_equal(features(tmp_path / "tuned"), features(esm_folder))


@pytest.mark.parametrize("shard_size", ["20KB", "1GB"])
def test_other_layouts_of_the_same_tensors_have_the_same_features(esm_folder, tmp_path, shard_size):
    EsmForMaskedLM.from_pretrained(esm_folder).save_pretrained(
        tmp_path / "shards", max_shard_size=shard_size
    )
    several = len(list((tmp_path / "shards").glob("model-*.safetensors")))
    assert (several > 1) == (shard_size == "20KB")
    np.testing.assert_array_equal(features(tmp_path / "shards"), features(esm_folder))
    one, other = (EsmEncoder.identity(weights=str(folder))["weights_sha256"]
                  for folder in (esm_folder, tmp_path / "shards"))  # fmt: skip
    assert (one != other) == (several > 1)


def test_the_layout_of_the_first_releases_is_read(esm_folder, copied, tmp_path):
    """Positions in every layer, and of two kinds, as the published files have them.

    The frequencies are others than those that the class makes: the file's count.
    """
    written = load_file(copied / "model.safetensors")
    [name] = [name for name in written if "inv_freq" in name]
    written[name] = written[name] * 0.9
    today = Path(shutil.copytree(copied, tmp_path / "today"))
    save_file(written, today / "model.safetensors", metadata={"format": "pt"})
    positions = written.pop(name)
    new = {"LayerNorm.beta": "LayerNorm.bias", "LayerNorm.gamma": "LayerNorm.weight"}
    tensors = {}
    for name, tensor in written.items():  # transformers 5 writes other names
        last = ".".join(name.split(".")[-2:])
        tensors[name.removesuffix(last) + new.get(last, last)] = tensor
    for layer in range(3):
        place = f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
        tensors[place] = positions.clone()
    tensors["esm.embeddings.position_ids"] = torch.arange(1026)[None]
    tensors["esm.embeddings.position_embeddings.weight"] = torch.randn(1026, 48)
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(features(copied), features(today))
    assert not np.allclose(features(copied), features(esm_folder), atol=1e-3)


def test_the_model_that_ships_is_found_by_its_name_and_is_the_one_of_its_card():
    folder, label = resolve_weights("mini-protein")
    assert label == "mini-protein" and (folder / "model.safetensors").stat().st_size < 12e6
    assert module.MINI_SHA256 in (folder / "README.md").read_text()
    features = load_encoder("esm", weights="mini-protein", device="cpu").encode_sequences(["GIGAV"])
    assert features.shape == (1, 128) and np.isfinite(features).all()


def test_another_model_in_the_place_of_that_which_ships_is_refused(copied, monkeypatch):
    monkeypatch.setattr(module, "MINI_FOLDER", copied)
    with pytest.raises(InputError, match="--weights mini-protein: .* is not the file that belongs"):
        resolve_weights("mini-protein")
    shutil.rmtree(copied)
    with pytest.raises(InputError, match="--weights mini-protein: .* install MolSieve anew"):
        resolve_weights("mini-protein")


def test_a_pickled_file_is_read_without_running_it(esm_folder, copied, tmp_path):
    tensors = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    torch.save(tensors, copied / "pytorch_model.bin")
    np.testing.assert_array_equal(features(copied), features(esm_folder))
    ran = tmp_path / "ran"
    torch.save({**tensors, "x": Bomb(ran)}, copied / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be read as ESM-2"):
        features(copied)
    assert not ran.exists()


def edit_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"model_type": "bert"}, "is that of bert, not of ESM-2"),
        ({"is_folding_model": True}, "is that of ESMFold"),
        ({"position_embedding_type": "absolute"}, "an older ESM"),
        ({"vocab_size": 30}, "not the 33 of ESM-2"),
        ({"pad_token_id": 0}, "not the 33 of ESM-2; its config.json must have .*pad_token_id 1"),
        ({"mask_token_id": None}, "must have .*mask_token_id 32"),
        ({"is_decoder": True}, "it is a decoder"),
        ({"transformers_weights": "x.safetensors"}, "take transformers_weights out"),
        ({"num_hidden_layers": 4}, r"tensors are missing .*encoder\.layer\.3"),
        ({"num_hidden_layers": 2}, r"tensors are of no use .*encoder\.layer\.2"),
        ({"intermediate_size": 90}, r"tensors are of another shape .*encoder\.layer\.0"),
    ],
)
def test_another_model_is_refused(copied, changes, told):
    edit_config(copied, **changes)
    with pytest.raises(InputError, match=told):
        features(copied)


def test_what_a_folder_lacks_is_told(copied, tmp_path):
    cases = {
        "vocab.txt": ("\n".join(reversed(module.VOCABULARY)), "its tokens are not the 33"),
        "model.safetensors": (None, "the folder lacks model.safetensors"),
        "config.json": ("{", "no model in Hugging Face's layout: config.json"),
    }
    for name, (content, told) in cases.items():
        (copied / name).unlink() if content is None else (copied / name).write_text(content)
        with pytest.raises(InputError, match=told):
            resolve_weights(str(copied))
        shutil.rmtree(copied) if name == "config.json" else (copied / "vocab.txt").unlink(True)
    with pytest.raises(InputError, match="no such folder; for esm give .*mini-protein"):
        resolve_weights(str(copied))


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("config.json", b"[]", "config.json: list where an object should be"),
        ("config.json", b"\xff{", "no model in Hugging Face's layout: config.json"),
        ("vocab.txt", b"\xff\xfe<cls>", "its tokens are not the 33"),
        ("model.safetensors.index.json", b"{", "model.safetensors.index.json is damaged: JSOND"),
        ("model.safetensors.index.json", b"{}", "index.json is damaged: KeyError: 'weight_map'"),
        ("model.safetensors.index.json", b'{"weight_map": []}', "is damaged: AttributeError"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": 1}}', "is damaged: TypeError"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "b"}}', "the folder lacks b"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_line(copied, name, content, told):
    (copied / name).write_bytes(content)
    if "index" in name:
        (copied / "model.safetensors").unlink()
    with pytest.raises(InputError, match=told) as raised:
        resolve_weights(str(copied))
    assert "\n" not in str(raised.value)


def test_tensors_that_are_missing_are_told(copied):
    tensors = load_file(copied / "model.safetensors")
    del tensors["esm.encoder.layer.1.output.dense.bias"]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match="tensors are missing .* 1, such as encoder.layer.1.output.dense.bias"
    ):
        features(copied)
