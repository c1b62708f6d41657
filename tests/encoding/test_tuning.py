"""jobs.tune: sizes are measured, the best is kept, and encoding takes it up."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.tune import tune as tune_job
from pipeline.encoding.cost import tuning
from pipeline.encoding.plan import encoder_pool, plan_encoding
from pipeline.encoding.settings import EncodeSettings, TuneSettings
from pipeline.encoding.steps import EncodeBatch
from pipeline.encoding.stored_features import encode
from pipeline.runtime.files import write_atomically
from tests.encoding.test_stored_features import table_of

pytestmark = pytest.mark.usefixtures("ray_session")
FEW_TOKENS, FEW_WINDOWS = {"cpu": [64, 256]}, {"cpu": (8, 32)}


@pytest.fixture
def argv(tmp_path, monkeypatch, moses_smiles, small_weights) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuning, "TOKENS", FEW_TOKENS)
    monkeypatch.setattr(tuning, "WINDOWS", FEW_WINDOWS)
    Path("m.smi").write_text("\n".join(moses_smiles[:30]))
    Path("hydrogen.smi").write_text("[H][H]\n")
    return ["--data_file", "m.smi", "--weights", str(small_weights), "--device", "cpu",
            "--seconds", "0.01", "--cache_root", "store", "--precision", "fp32"]  # fmt: skip


def command(argv: list[str]) -> int:
    return cli.main(TuneSettings, tune_job, "tune", argv)


def settings_of(weights: Path, **changes: Any) -> EncodeSettings:
    return EncodeSettings(
        data_file="m.smi", weights=str(weights), device="cpu", cache_root="store",
        encoder_workers=1, **{"precision": "fp32", **changes},
    )  # fmt: skip


def found(settings: EncodeSettings) -> tuning.Trial | None:
    return tuning.tuned(plan_encoding(settings), encoder_pool(settings, "cpu"))


def test_every_size_is_measured_and_the_best_is_kept(argv, capsys, small_weights, monkeypatch):
    settings = settings_of(small_weights)
    assert found(settings) is None
    assert command(argv) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:6]]
    sizes = [(int(row[0]), int(row[1])) for row in rows]
    assert sizes == [(w, t) for t in FEW_TOKENS["cpu"] for w in FEW_WINDOWS["cpu"]]
    assert min(float(row[4]) for row in rows) > 0
    (chosen,) = (i for i, row in enumerate(rows) if row[-1] == "chosen")
    best = found(settings)
    assert (best.encoding_batch_size, best.tokens) == sizes[chosen]
    assert found(settings_of(small_weights, precision="bf16")) is None
    monkeypatch.setattr(tuning, "device_name", lambda device: "another")
    assert found(settings) is None


def test_encoding_takes_up_what_was_tuned(argv, moses_smiles, small_weights):
    settings = settings_of(small_weights)
    plan = plan_encoding(settings)
    place = tuning._place(plan, encoder_pool(settings, "cpu"))
    best = tuning.Trial(7, 123, 0.0, 1.0, 1.0)
    write_atomically(place, json.dumps(asdict(best)).encode())
    assert encode(table_of(moses_smiles[:30]), plan).encoded == 30
    shards = Path("store/features").rglob("*.parquet")
    sizes = [pq.read_metadata(shard).num_rows for shard in shards]
    assert sum(sizes) == 30 and max(sizes) == 7
    pool = tuning.tuned_pool(plan)
    assert EncodeBatch(plan, "run", pool).encoder.budget == tuning.budget_of(123, 7)
    own = plan_encoding(replace(settings, encoding_batch_size=9))
    assert tuning.tuned_pool(own).batch_size == 9


def test_a_damaged_note_is_told_and_left_aside(argv, small_weights, caplog):
    assert command(argv) == 0
    (kept,) = Path("store/tuning").rglob("_best.json")
    for content in ("", "[]", "{}", '{"rate": 1}'):
        kept.write_text(content)
        assert found(settings_of(small_weights)) is None
        assert "run it again" in caplog.text
        caplog.clear()


def test_molecules_without_atoms_for_the_encoder_are_left_aside(argv):
    Path("m.smi").write_text("[H][H]\nCCO\n")
    assert command(argv) == 0


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--memory_gb", "0.001"], "--memory_gb (0.001 GiB): the smallest size takes more"),
        (["--memory_gb", "0"], "--memory_gb must be above 0"),
        (["--foundation_model", "minimol"], "nothing to tune"),
        (["--data_file", "hydrogen.smi"], "no molecule to take sizes from"),
        (["--cache_root", "m.smi"], "--cache_root m.smi: cannot be written to"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(argv, capsys, flags, told):
    assert command([*argv, *flags]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("jobs.tune: error: ") and told in last
