"""Encoding that is killed, or that meets another run on the same store, loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from rdkit import Chem

from jobs import encode as encode_job
from jobs.cli import main
from pipeline.encoding.settings import EncodeSettings
from pipeline.store.keyed_table import KeyedTable
from tests.commands import (
    LIMIT_SECONDS,
    descendants,
    start_job,
    wait_for_success,
    wait_until,
)
from tests.encoding.test_stored_features import encode_file
from tests.held import hold, release

BAD_LINES = ["nonsense", "", "[H][H]"]


@pytest.fixture(scope="module")
def lines(hiv_smiles, moses_smiles) -> list[str]:
    """100 rows, three of them no molecules; their conformers take seconds altogether."""
    atoms = {s: Chem.MolFromSmiles(s).GetNumHeavyAtoms() for s in hiv_smiles}
    medium = [s for s, n in atoms.items() if 18 <= n <= 45]
    good = (medium + moses_smiles)[: 100 - len(BAD_LINES)]
    return good[:60] + BAD_LINES + good[60:]


@pytest.fixture(scope="module")
def undisturbed(ray_session, encoder_in_process, lines, small_weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    encode_file(folder, lines, small_weights, conformer_method="etkdg")
    return folder


def flags(
    folder: Path, lines: list[str], cache_root: Path, weights: Path, actors: int | None = 1
) -> dict[str, object]:
    """Of jobs.encode, whose rows are written to the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.smi").write_text("\n".join(lines))
    return {
        "data_file": folder / "rows.smi", "cache_root": cache_root, "output_dir": folder / "out",
        "weights": weights, "device": "cpu", "precision": "fp32",
        "conformer_method": "etkdg",
        "encoding_batch_size": 4,  # many shards, so that a kill falls between two
        **({} if actors is None else {"encoder_workers": actors}),
    }  # fmt: skip


def start(folder: Path, *given: object, actors: int | None = 1) -> subprocess.Popen:
    """The command as a process of its own; RAY_ADDRESS makes it join the tests' Ray."""
    return start_job("encode", folder, flags(folder, *given, actors=actors), held=True)


def run_here(folder: Path, *given: object) -> None:
    """The command in this process, its encoder too."""
    words = flags(folder, *given).items()
    argv = [word for name, value in words for word in (f"--{name}", str(value))]
    assert main(EncodeSettings, encode_job.encode, "encode", argv) == 0


def shards(cache_root: Path) -> list[Path]:
    return list(cache_root.glob("features/*/*.parquet"))


def stored_keys(cache_root: Path) -> set[str]:
    return {key for shard in shards(cache_root) for key in pq.read_table(shard)["key"].to_pylist()}


def check_complete(folder: Path, lines: list[str], store: Path, undisturbed: Path) -> None:
    """Every row is accounted for, and the features are those of the undisturbed run."""
    out = folder / "out"
    molecules = pq.read_table(out / "molecules.parquet").to_pylist()
    rejected = pq.read_table(out / "rejected.parquet").to_pylist()
    ids = [row["id"] for row in molecules + rejected]
    assert sorted(ids) == sorted(f"rows:{i}" for i in range(len(lines)))
    bad = [f"rows:{i}" for i, line in enumerate(lines) if line in BAD_LINES]
    assert sorted(row["id"] for row in rejected) == sorted(bad)
    keys = sorted({row["key"] for row in molecules})
    found, expected = (features(root, keys, out) for root in (store, undisturbed / "store"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def features(root: Path, keys: list[str], out: Path) -> np.ndarray:
    identity = json.loads((out / "run_summary.json").read_text())["encoder_identity"]
    return KeyedTable(str(root), "features", identity).read_features(keys)


def test_a_run_that_a_full_disk_or_ctrl_c_stops_is_continued_by_the_same_command(
    undisturbed, lines, small_weights, tmp_path
):
    """A limit on the encoder's files stands for the full disk: the kernel refuses the write."""
    store, total = tmp_path / "store", len(lines) - len(BAD_LINES)

    def log() -> str:
        return (tmp_path / "log.txt").read_text()

    hold(tmp_path / "out", after=2)
    stopped = start(tmp_path, lines, store, small_weights)
    wait_until(lambda: len(shards(store)) >= 2, stopped, tmp_path)
    (encoder,) = descendants(os.getpid(), "EncodeBatch")
    encoder.rlimit(psutil.RLIMIT_FSIZE, (100, 100))
    release(tmp_path / "out")
    assert stopped.wait(timeout=LIMIT_SECONDS) == 2
    last = log().strip().splitlines()[-1]
    assert last.startswith(f"jobs.encode: error: cannot write {store}/features/")
    assert "File too large; make room" in last
    assert not list(store.rglob("*.partial"))
    kept = stored_keys(store)
    assert 0 < len(kept) < total

    enough = len(shards(store)) + 2
    hold(tmp_path / "out", after=enough)
    stopped = start(tmp_path, lines, store, small_weights)
    wait_until(lambda: len(shards(store)) >= enough, stopped, tmp_path)
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait(timeout=LIMIT_SECONDS) == 130
    assert "the same command continues" in log()
    assert kept < stored_keys(store)
    assert "Traceback" not in log()
    assert not (tmp_path / "out" / "run_summary.json").exists()

    release(tmp_path / "out")
    run_here(tmp_path, lines, store, small_weights)
    summary = json.loads((tmp_path / "out" / "run_summary.json").read_text())
    assert summary["found_in_store"] > len(kept)
    assert 0 < summary["encoded"] < total
    assert summary["encoded"] + summary["found_in_store"] == total
    check_complete(tmp_path, lines, store, undisturbed)


def test_a_driver_that_encodes_and_is_stopped_by_ctrl_c_or_killed_is_continued(
    undisturbed, lines, small_weights, tmp_path
):
    """Without --encoder_workers, on the tests' Ray of two cores."""
    store, stored = tmp_path / "store", set()
    for sent, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        enough = len(shards(store)) + 2
        hold(tmp_path / "out", after=enough)
        stopped = start(tmp_path, lines, store, small_weights, actors=None)
        wait_until(lambda least=enough: len(shards(store)) >= least, stopped, tmp_path)
        assert not descendants(os.getpid(), "EncodeBatch")
        stopped.send_signal(sent)
        release(tmp_path / "out")  # what runs may end
        assert stopped.wait(timeout=LIMIT_SECONDS) == code
        assert "Traceback" not in (tmp_path / "log.txt").read_text()
        assert stored < stored_keys(store)
        stored = stored_keys(store)
    assert len(stored) < len(lines) - len(BAD_LINES)
    run_here(tmp_path, lines, store, small_weights)
    check_complete(tmp_path, lines, store, undisturbed)


def test_two_runs_at_once_on_one_store_both_finish(undisturbed, lines, small_weights, tmp_path):
    """The first has begun and is held while the second makes what both need."""
    store = tmp_path / "store"
    inputs = {"first": lines[:70], "second": lines[40:]}
    hold(tmp_path / "first" / "out", after=1)
    first = start(tmp_path / "first", inputs["first"], store, small_weights)
    wait_until(lambda: shards(store), first, tmp_path / "first")
    run_here(tmp_path / "second", inputs["second"], store, small_weights)
    release(tmp_path / "first" / "out")
    wait_for_success(first, tmp_path / "first")
    for name, rows in inputs.items():
        check_complete(tmp_path / name, rows, store, undisturbed)
