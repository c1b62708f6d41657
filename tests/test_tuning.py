"""jobs.tune: sizes are measured, the best is kept, and encoding takes it up."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.tune import tune as tune_job
from pipeline import tuning
from pipeline.cluster import settled
from pipeline.config import EncodeSettings, TuneSettings
from pipeline.encode import encode
from pipeline.tables import Tables
from tests.test_encode import table_of

pytestmark = pytest.mark.usefixtures("ray_session")
FEW_TOKENS, FEW_WINDOWS = {"cpu": [64, 256]}, {"cpu": (8, 32)}


@pytest.fixture
def argv(tmp_path, monkeypatch, moses_smiles, small_weights) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuning, "TOKENS", FEW_TOKENS)
    monkeypatch.setattr(tuning, "WINDOWS", FEW_WINDOWS)
    Path("m.smi").write_text("\n".join(moses_smiles[:30]))
    return ["--data_file", "m.smi", "--weights", str(small_weights), "--device", "cpu",
            "--seconds", "0.01", "--cache_root", "store", "--precision", "fp32"]  # fmt: skip


def command(argv: list[str]) -> int:
    return cli.main(TuneSettings, tune_job, "tune", argv)


def test_every_size_is_measured_and_the_best_is_kept(argv, capsys):
    assert command(argv) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:6]]
    sizes = [(int(row[0]), int(row[1])) for row in rows]
    assert sizes == [(w, t) for t in FEW_TOKENS["cpu"] for w in FEW_WINDOWS["cpu"]]
    rates = [float(row[4]) for row in rows]
    (chosen,) = (i for i, row in enumerate(rows) if row[-1] == "chosen")
    assert min(rates) > 0 and rates[chosen] >= tuning.CLOSE_TO_BEST * max(rates) - 0.1
    (kept,) = Path("store/tuning").rglob("_best.json")
    best = json.loads(kept.read_text())["best"]
    assert (best["encoding_batch_size"], best["tokens"]) == sizes[chosen]


def test_encoding_takes_up_what_was_tuned(argv, moses_smiles, small_weights, caplog):
    settings = EncodeSettings(
        data_file="m.smi", weights=str(small_weights), device="cpu", cache_root="store",
        precision="fp32", encoder_workers=1,
    )  # fmt: skip
    identity = Tables.of(settled(settings)).identity
    assert tuning.tuned(settings, identity, "cpu") is None
    assert command(argv) == 0
    name, best = tuning.tuned(settings, identity, "cpu")
    assert name == tuning.device_name("cpu")
    assert tuning.tuned(replace(settings, precision="bf16"), identity, "cpu") is None
    with caplog.at_level(logging.INFO):
        result = encode(table_of(moses_smiles[:30]), settings)
    assert result.encoded == 30
    assert f"as tuned on {name}: {best.encoding_batch_size} molecules" in caplog.text
    shards = Path("store/features").rglob("*.parquet")
    sizes = [pq.read_metadata(shard).num_rows for shard in shards]
    assert sum(sizes) == 30 and max(sizes) == min(30, best.encoding_batch_size)


def test_a_damaged_note_is_told_and_left_aside(argv, small_weights, caplog):
    assert command(argv) == 0
    (kept,) = Path("store/tuning").rglob("_best.json")
    settings = TuneSettings(
        data_file="m.smi", weights=str(small_weights), cache_root="store", precision="fp32"
    )
    identity = Tables.of(settings).identity
    for content in ("", "[]", "{}", '{"device": "x", "best": {"rate": 1}}'):
        kept.write_text(content)
        assert tuning.tuned(settings, identity, "cpu") is None
        assert "run it again" in caplog.text
        caplog.clear()


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--memory_gb", "0.001"], "--memory_gb 0.001: the smallest size takes more"),
        (["--memory_gb", "0"], "--memory_gb must be above 0"),
        (["--foundation_model", "minimol"], "nothing to tune"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(argv, capsys, flags, told):
    assert command([*argv, *flags]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("jobs.tune: error: ") and told in last
