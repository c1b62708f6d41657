"""The encode command: bad input is one line and exit code 2, good input accounts for every row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import cli
from jobs.encode import encode
from pipeline.encoding.settings import EncodeSettings
from pipeline.molecules.identity import canonicalize, molecule_key
from pipeline.store.keyed_table import KeyedTable
from tests.commands import REPOSITORY, assert_one_line


def command(*argv: str | Path) -> int:
    return cli.main(EncodeSettings, encode, "encode", [str(word) for word in argv])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory, with two good files in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.smi").write_text("OCC\n")
    (tmp_path / "good.csv").write_text("formula,y\nOCC,1\n")
    return tmp_path


GOOD = ("--data_file", "good.smi", "--weights", "untrained")
BAD_FLAGS = {
    "no arguments": ([], ["required: --data_file", "--help"]),
    "unknown flag": ([*GOOD, "--bogus", "1"], ["--bogus"]),
    "stray word": ([*GOOD, "more.smi"], ["more.smi"]),
    "flag without value": (["--data_file"], ["--data_file"]),
    "wrong type": ([*GOOD, "--conformer_seconds", "soon"], ["--conformer_seconds", "soon"]),
    "fraction of a molecule": ([*GOOD, "--encoding_batch_size", "1.5"], ["--encoding_batch_size"]),
    "batch of zero": ([*GOOD, "--encoding_batch_size", "0"], ["--encoding_batch_size", "least 1"]),
    "no time": ([*GOOD, "--conformer_seconds", "0"], ["--conformer_seconds", "above 0"]),
    "unknown precision": ([*GOOD, "--precision", "fp8"], ["--precision", "bf16", "fp8"]),
    "boolean of another kind": ([*GOOD, "--retry_rejected", "maybe"], ["--retry_rejected"]),
    "missing file": (["--data_file", "absent.csv", *GOOD[2:]], ["absent.csv", "no such file"]),
    "missing column": (
        ["--data_file", "good.csv", *GOOD[2:]],
        ["'smiles'", "formula, y", "--smiles_column"],
    ),
    "missing weights": ([*GOOD[:2], "--weights", "absent.pt"], ["absent.pt", "untrained"]),
    "missing configuration": (["--config", "absent.yaml"], ["absent.yaml"]),
    "output in place of a file": ([*GOOD, "--output_dir", "good.smi"], ["--output_dir"]),
    "store in place of a file": ([*GOOD, "--cache_root", "good.smi"], ["--cache_root"]),
}
BAD_YAML = {
    "unknown key": (b"bogus: 1", ["'bogus'"]),
    "wrong type": (b"encoding_batch_size: many", ["--encoding_batch_size"]),
    "wrong boolean": (b"retry_rejected: 3", ["--retry_rejected"]),
    "out of bounds": (b"encoder_workers: 0", ["--encoder_workers", "at least 1"]),
    "a list": (b"[1, 2]", ["config"]),
    "not YAML": (b"a: [", ["config"]),
    "not text": (b"\xff\xfe\x00", ["config"]),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_bad_flags_are_one_line(folder, capsys, case):
    argv, told = BAD_FLAGS[case]
    assert_one_line(command(*argv), capsys.readouterr().err, "encode", *told)


@pytest.mark.parametrize("case", BAD_YAML)
def test_bad_yaml_is_one_line(folder, capsys, case):
    content, told = BAD_YAML[case]
    (folder / "settings.yaml").write_bytes(content)
    code = command("--config", "settings.yaml", *GOOD)
    assert_one_line(code, capsys.readouterr().err, "encode", *told)


def test_as_a_process_bad_input_is_one_line_too(folder):
    argv = [sys.executable, "-m", "jobs.encode", "--data_file", str(folder / "absent.smi")]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert_one_line(done.returncode, done.stderr, "encode", "absent.smi: no such file")
    assert done.stdout == ""


@pytest.mark.parametrize(
    "flags, expected",
    [
        ([], False),
        (["--retry_rejected"], True),
        (["--retry_rejected", "true"], True),
        (["--retry_rejected", "false"], False),
        (["--retry_rejected", "--precision", "bf16"], True),
    ],
)
def test_a_boolean_flag_stands_alone_or_takes_a_value(flags, expected):
    for argv in ([*flags, *GOOD], [*GOOD, *flags]):
        assert cli.parse(EncodeSettings, "encode", argv).retry_rejected is expected


def test_the_command_line_wins_over_yaml_and_yaml_over_defaults(folder):
    (folder / "settings.yaml").write_text(
        "data_file: other.smi\nprecision: bf16\nencoding_batch_size: 7\nretry_rejected: true\n"
    )
    for argv in (["--config", "settings.yaml", *GOOD], [*GOOD, "--config", "settings.yaml"]):
        settings = cli.parse(EncodeSettings, "encode", [*argv, "--encoding_batch_size", "9"])
        assert (settings.data_file, settings.encoding_batch_size) == ("good.smi", 9)
        assert settings.retry_rejected and settings.precision == "bf16"
        assert settings.conformer_seed == 42


def test_a_run_accounts_for_every_row(
    ray_session, folder, small_weights, hiv_smiles, moses_smiles, capsys
):
    smiles = [*moses_smiles[:8], hiv_smiles[0], "nonsense", "", "[H][H]", moses_smiles[0]]
    lines = [f"m{i},{s},{i / 2}" for i, s in enumerate(smiles)]
    (folder / "rows.csv").write_text("\n".join(["name,smiles,y", *lines, "m13,C,1,2"]) + "\n")
    (folder / "settings.yaml").write_text(
        "data_file: rows.csv\nid_column: name\nlabel_column: y\ndevice: cpu\n"
        "encoder_workers: 1\ndataset: a few\n"
    )
    argv = ["--config", "settings.yaml", "--weights", small_weights, "--cache_root", "store"]
    assert command(*argv, "--force_recompute_cache") == 0
    shown = capsys.readouterr().out
    assert "14 in = 10 with features + 4 rejected" in shown
    assert "small.pt" in shown and "Traceback" not in shown

    molecules = pq.read_table("outputs/molecules.parquet").to_pylist()
    rejected = pq.read_table("outputs/rejected.parquet").to_pylist()
    written = [f"m{i}" for i in range(13)] + ["rows:13#"]
    assert sorted(row["id"] for row in molecules + rejected) == sorted(written)
    assert {row["id"]: row["stage"] for row in rejected} == {
        "m9": "parse", "m10": "parse", "m11": "conformers", "rows:13#": "read",
    }  # fmt: skip
    assert all(row["reason"] for row in rejected)
    for row in molecules:
        number = int(row["id"][1:])
        assert row["smiles"] == canonicalize(smiles[number]) and row["label"] == number / 2
        assert row["key"] == molecule_key(row["smiles"])

    summary = json.loads(Path("outputs/run_summary.json").read_text())
    assert summary["rows_in"] == summary["molecules_out"] + summary["rejected"] == 14
    assert (summary["encoded"], summary["found_in_store"]) == (9, 0)
    assert summary["rejected_by_stage"] == {"parse": 2, "conformers": 1, "read": 1}
    assert (summary["dataset"], summary["weights"]) == ("a few", "small.pt")
    assert summary["encoding_molecules_per_second"] > 0
    features = KeyedTable("store", "features", summary["encoder_identity"])
    assert features.uri == summary["features"]
    found = features.read_features([row["key"] for row in molecules])
    assert found.shape == (10, 64) and np.isfinite(found).all()

    assert command(*argv, "--output_dir", "again") == 0
    assert "0 now" in capsys.readouterr().out
    again = json.loads(Path("again/run_summary.json").read_text())
    assert (again["encoded"], again["found_in_store"], again["rejected"]) == (0, 9, 4)
    second = pq.read_table("again/rejected.parquet").to_pylist()
    assert {row["id"]: row["reason"] for row in second} == {
        row["id"]: row["reason"] for row in rejected
    }
