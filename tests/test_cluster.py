"""Several nodes, simulated on this machine: work spreads; what a node takes with it is redone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from ray.cluster_utils import Cluster

from pipeline.store import KeyedTable
from tests.commands import LIMIT_SECONDS, start_job, wait_for_success
from tests.test_encode import encode_file

BAD = ["nonsense", "", "[H][H]"]


@pytest.fixture(scope="module")
def lines(hiv_smiles, moses_smiles) -> list[str]:
    """160 rows, three of them no molecules."""
    good = [s for s in hiv_smiles if len(s) < 60] + moses_smiles
    return good[:50] + BAD + good[50:157]


@pytest.fixture(scope="module")
def expected(ray_session, lines, small_weights, tmp_path_factory) -> Path:
    """A folder with what one node makes of the rows."""
    folder = tmp_path_factory.mktemp("one_node")
    encode_file(folder, lines, small_weights)
    return folder


@pytest.fixture
def cluster(expected, monkeypatch) -> Iterator[Cluster]:
    """A head without cores and two nodes of one core each; commands join it."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        made.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    made.shutdown()


def start(folder: Path, lines: list[str], weights: Path) -> subprocess.Popen:
    """jobs.encode on the cluster, in small batches."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.smi").write_text("\n".join(lines))
    flags = {
        "data_file": folder / "rows.smi", "cache_root": folder / "store",
        "output_dir": folder / "out", "weights": weights, "device": "cpu", "encoder_workers": 2,
        "precision": "fp32", "encoding_batch_size": 8,
    }  # fmt: skip
    return start_job("encode", folder, flags)


def wait_until(process: subprocess.Popen, folder: Path, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert process.poll() is None, (folder / "log.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def features_begun(folder: Path) -> Callable[[], object]:
    return lambda: list(folder.glob("store/features/*/*.parquet"))


def check_same(folder: Path, expected: Path, lines: list[str]) -> dict:
    """Each row once, molecule or rejected; features those of one node."""
    summary = json.loads((folder / "out/run_summary.json").read_text())
    molecules = pq.read_table(folder / "out/molecules.parquet")
    rejected = pq.read_table(folder / "out/rejected.parquet")
    ids = molecules["id"].to_pylist() + rejected["id"].to_pylist()
    assert sorted(ids) == sorted(f"rows:{i}" for i in range(len(lines)))
    keys = sorted(set(molecules["key"].to_pylist()))
    identity = summary["encoder_identity"]
    found, wanted = (
        KeyedTable(str(root / "store"), "features", identity).read_features(keys)
        for root in (folder, expected)
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    return summary


def test_work_spreads_over_all_nodes_to_the_results_of_one(
    cluster, expected, lines, small_weights, tmp_path
):
    wait_for_success(start(tmp_path, lines, small_weights), tmp_path)
    nodes = check_same(tmp_path, expected, lines)["stages"]["nodes"]  # one encoder may be enough
    assert len(nodes["conformer_node"]) == 2
    assert sum(nodes["conformer_node"].values()) == 158  # one of them rejected


def encoders(cluster: Cluster) -> list[psutil.Process]:
    """Encoder actors of this cluster."""
    nodes = [info.process for node in cluster.list_all_nodes()
             for info in node.all_processes.get("raylet", [])]  # fmt: skip
    workers = [child for node in nodes for child in psutil.Process(node.pid).children(True)]
    return [worker for worker in workers if "EncodeBatch" in " ".join(worker.cmdline())]


def test_an_encoder_that_is_killed_and_a_node_that_leaves_cost_nothing(
    cluster, expected, lines, small_weights, tmp_path
):
    process = start(tmp_path, lines, small_weights)
    wait_until(process, tmp_path, features_begun(tmp_path))
    os.kill(encoders(cluster)[0].pid, signal.SIGKILL)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    wait_for_success(process, tmp_path)
    check_same(tmp_path, expected, lines)
