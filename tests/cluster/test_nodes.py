"""Several nodes, simulated on this machine: work spreads; what a node takes with it is redone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import ray
import safetensors.torch
import torch
from ray.cluster_utils import Cluster

from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding.plan import encoder_pool
from pipeline.runtime.errors import InputError
from pipeline.runtime.nodes.cluster import cluster_cores, cores_now, device_of, resources
from pipeline.store.keyed_table import KeyedTable
from pipeline.training.run import run_training
from pipeline.training.settings import TrainSettings
from tests.clusters import free_ports, started_head
from tests.commands import descendants, start_job, wait_for_success, wait_until
from tests.encoding.test_stored_features import encode_file
from tests.held import hold, release
from tests.training.test_resume import MODEL, checkpoints

BAD = ["nonsense", "", "[H][H]"]
SLOW = "C" * 300  # MMFF94 takes more than half a minute
LARGE = "C" * 4500  # its distance bounds take more than a GiB


@pytest.fixture(scope="module")
def lines(hiv_smiles, moses_smiles) -> list[str]:
    """100 rows, three of them no molecules."""
    good = [s for s in hiv_smiles if len(s) < 60] + moses_smiles
    return good[:50] + BAD + good[50:97]


@pytest.fixture(scope="module")
def expected(ray_session, encoder_in_process, lines, small_weights, tmp_path_factory) -> Path:
    """A folder with what one node makes of the rows."""
    folder = tmp_path_factory.mktemp("one_node")
    encode_file(folder, lines, small_weights)
    return folder


@pytest.fixture(scope="module")
def cluster(expected) -> Iterator[Cluster]:
    """A head without cores and two nodes of one core each; commands join it."""
    head = {"num_cpus": 0, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        made.add_node(num_cpus=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
    made.shutdown()


def start(
    folder: Path, lines: list[str], weights: Path, held: bool = False, **flags: object
) -> subprocess.Popen:
    """jobs.encode on the cluster, in small batches."""
    folder.mkdir(exist_ok=True)
    (folder / "rows.smi").write_text("\n".join(lines))
    flags |= {
        "data_file": folder / "rows.smi", "cache_root": folder / "store",
        "output_dir": folder / "out", "weights": weights, "device": "cpu", "encoder_workers": 2,
        "precision": "fp32", "encoding_batch_size": 8,
    }  # fmt: skip
    return start_job("encode", folder, flags, held)


def check_same(folder: Path, expected: Path, lines: list[str]) -> dict:
    """Each row once, molecule or rejected; features those of one node."""
    summary = json.loads((folder / "out/run_summary.json").read_text())
    molecules = pq.read_table(folder / "out/molecules.parquet")
    rejected = pq.read_table(folder / "out/rejected.parquet")
    ids = molecules["id"].to_pylist() + rejected["id"].to_pylist()
    assert sorted(ids) == sorted(f"rows:{i}" for i in range(len(lines)))
    bad = [i for i, line in enumerate(lines) if line in (*BAD, SLOW, LARGE)]
    assert sorted(rejected["id"].to_pylist()) == sorted(f"rows:{i}" for i in bad)
    keys = sorted(set(molecules["key"].to_pylist()))
    identity = summary["encoder_identity"]
    found, wanted = (
        KeyedTable(str(root / "store"), "features", identity).read_features(keys)
        for root in (folder, expected)
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    return summary


def workers_of_nodes(cluster: Cluster, words: str) -> list[list[psutil.Process]]:
    """Processes of each node's Ray workers, and their children, by words of their command."""
    daemons = [info.process.pid for node in cluster.list_all_nodes()
               for info in node.all_processes.get("raylet", [])]  # fmt: skip
    return [descendants(pid, words) for pid in daemons]


def workers(cluster: Cluster, words: str) -> list[psutil.Process]:
    """The same of all nodes."""
    return sum(workers_of_nodes(cluster, words), [])


def test_work_spreads_over_all_nodes_and_a_molecule_that_crashes_rdkit_costs_itself(
    cluster, expected, lines, small_weights, tmp_path
):
    """One crashes each time, as RDKit would if it met a fault of its own; one needs too much."""
    lines = [SLOW, *lines, LARGE]
    process = start(tmp_path, lines, small_weights, conformer_gb=1, conformer_seconds=100)
    crashed: set[int] = set()

    def second_crash() -> bool:
        for child in workers(cluster, "child_process import serve"):
            if child.pid not in crashed and child.cpu_times().user > 5:  # the others need 3
                child.send_signal(signal.SIGSEGV)
                crashed.add(child.pid)
        return len(crashed) == 2

    wait_until(second_crash, process, tmp_path)
    wait_for_success(process, tmp_path)
    nodes = check_same(tmp_path, expected, lines)["stages"]["nodes"]  # one encoder may be enough
    assert len(nodes["conformer_node"]) == 2
    assert sum(nodes["conformer_node"].values()) == 100  # three of them rejected
    reasons = dict(zip(*pq.read_table(tmp_path / "out/rejected.parquet",
                                      columns=["id", "reason"]).to_pydict().values()))  # fmt: skip
    assert reasons["rows:0"] == f"RDKit crashed on it 2 times (exit code {-signal.SIGSEGV})"
    assert reasons[f"rows:{len(lines) - 1}"] == "RDKit needs more than 1 GiB for it"


def test_an_encoder_that_is_killed_and_a_node_that_leaves_cost_nothing(
    cluster, expected, lines, small_weights, tmp_path
):
    hold(tmp_path / "out", after=1)
    process = start(tmp_path, lines, small_weights, held=True)
    wait_until(lambda: list(tmp_path.glob("store/features/*/*.parquet")), process, tmp_path)
    os.kill(workers(cluster, "EncodeBatch")[0].pid, signal.SIGKILL)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    release(tmp_path / "out")
    try:
        wait_for_success(process, tmp_path)
    finally:
        cluster.add_node(num_cpus=1)
    check_same(tmp_path, expected, lines)


def test_training_workers_spread_over_nodes_and_one_that_is_killed_costs_nothing(
    cluster, in_process, moses_smiles, small_weights, tmp_path
):
    """The weights are those of one worker that was left alone."""
    names = ("train", "iid_val", "iid_test", "ood_val", "ood_test")
    items = {name: [{"smiles": s} for s in moses_smiles[i:40:5]] for i, name in enumerate(names)}
    (tmp_path / "split.json").write_text(json.dumps({"split": items}))
    flags = {
        "data_file": str(tmp_path / "split.json"), "weights": str(small_weights), "device": "cpu",
        "cache_root": str(tmp_path / "store"), "sampling": "all", "ood_val_by": "molecule",
        "epochs": 60, "early_stopping_patience": 60, "checkpoint_every": 20, "dropout": 0.0,
    }  # fmt: skip
    run_training(TrainSettings(**flags, output_dir=str(tmp_path / "alone")))
    output = tmp_path / "killed"
    hold(output, after=1)
    flags |= {"num_workers": 2, "output_dir": output}
    process = start_job("train", output, flags, held=True)
    wait_until(lambda: checkpoints(output), process, output)
    trainers = workers_of_nodes(cluster, "RayTrainWorker")
    assert sorted(map(len, trainers)) == [0, 1, 1]  # the head has no cores
    max(trainers, key=len)[0].kill()
    release(output)
    wait_for_success(process, output)
    stats = json.loads((output / "training_stats.json").read_text())
    assert stats["num_workers"] == 2 and stats["resumed_after_epoch"] > 0
    model, expected = (
        safetensors.torch.load_file(folder / MODEL) for folder in (output, tmp_path / "alone")
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(model[name], tensor, rtol=1e-3, atol=1e-5)


HEAD_NODE = "f" * 51 + "00000"  # by which Ray's provider of simulated nodes knows the head


@pytest.fixture
def growing(tmp_path) -> Iterator[dict[str, str]]:
    """A head without cores whose autoscaler may add two nodes of one; the environment to join it.

    The autoscaler is the one of `ray up`; its provider starts nodes on this machine.
    """
    [port] = free_ports(1)
    address = f"{ray.util.get_node_ip_address()}:{port}"
    provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    node = {"node_config": {}, "min_workers": 0}
    groups = ("setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    config = {
        **{f"{group}_commands": [] for group in (*groups, "initialization")},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "cluster_name": "growing", "max_workers": 2, "idle_timeout_minutes": 5,
        "provider": {
            "type": "external", "module": provider, "gcs_address": address,
            "head_node_id": HEAD_NODE, "launch_multiple": True, "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {**node, "resources": {"CPU": 0}, "max_workers": 0},
            "worker": {**node, "resources": {"CPU": 1}, "max_workers": 2},
        },
    }  # fmt: skip
    (tmp_path / "cluster.json").write_text(json.dumps(config))
    environment = {
        "RAY_enable_autoscaler_v2": "1", "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_NODE, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE,
    }  # fmt: skip
    flags = ["--num-cpus=0", f"--autoscaling-config={tmp_path / 'cluster.json'}",
             "--include-dashboard=false", "--include-log-monitor=false"]  # fmt: skip
    with started_head(tmp_path, port, *flags, **environment):
        yield {"RAY_ADDRESS": address, "MOLSIEVE_MAX_RESOURCES": '{"CPU": 2}'}


def test_a_cluster_without_workers_grows_with_the_work(
    growing, expected, lines, small_weights, tmp_path, monkeypatch
):
    """The head has no core: a conformer is made on a node that came for it."""
    for name, value in growing.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "run"
    wait_for_success(start(folder, lines, small_weights), folder)
    check_same(folder, expected, lines)


def test_what_a_cluster_may_grow_to_is_told_by_the_environment(ray_session, monkeypatch):
    monkeypatch.setenv("MOLSIEVE_MAX_RESOURCES", '{"CPU": 1024, "GPU": 8}')
    assert (cluster_cores(), resources()["GPU"], device_of("auto")) == (1024, 8, "cuda")
    pool = encoder_pool(EncoderSettings(), "cuda")
    assert (pool.actors, pool.gpus, pool.strategy().min_size) == (8, 1.0, 1)
    assert encoder_pool(EncoderSettings(), "cpu").actors == 1024
    without_torch = encoder_pool(EncoderSettings(foundation_model="ecfp"), "cuda")
    assert without_torch[:4] == (1024, "cpu", 0, 0)  # fingerprints leave the GPUs alone
    assert cores_now() == 2
    for wrong in ("8 GPUs", "[1]", '{"GPU": "many"}', '{"CPU": Infinity}', '{"CPU": -1}'):
        monkeypatch.setenv("MOLSIEVE_MAX_RESOURCES", wrong)
        with pytest.raises(InputError, match="not a JSON object of numbers"):
            resources()
