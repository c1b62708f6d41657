"""Jobs submitted to a head of a cluster: status, exit code, logs, results, metrics."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest

from pipeline.store.keyed_table import KeyedTable
from tests.clusters import RAY, free_ports, started_head
from tests.commands import LIMIT_SECONDS, REPOSITORY
from tests.encoding.test_stored_features import encode_file


class Head(NamedTuple):
    """A running head: what `ray job` needs to reach it, and its Prometheus endpoint."""

    address: str
    metrics: str
    environment: dict[str, str]

    def told(self, path: str) -> dict[str, str]:
        """What `ray job logs` and `ray job status` ask, without a process of their own."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{self.address}/api/jobs/{path}", headers=headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def submit(self, name: str, job: str, **flags: object) -> subprocess.Popen:
        """As docs/cluster.md submits: the working directory travels to the cluster."""
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        python = [sys.executable, "-m", f"jobs.{job}", *words]
        ray_job = [RAY, "job", "submit", "--address", self.address, "--submission-id", name]
        return subprocess.Popen(
            [*ray_job, "--working-dir", ".", "--", *python],
            env=self.environment, cwd=REPOSITORY, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator[Head]:
    """`ray start --head` with its dashboard server and token authentication."""
    folder = tmp_path_factory.mktemp("head")
    gcs, dashboard, agent, metrics = free_ports(4)
    (folder / "token").write_text(secrets.token_hex(32))
    flags = [
        "--num-cpus=2", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}",
    ]  # fmt: skip
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_metrics_report_interval_ms": "500",
    }
    with started_head(folder, gcs, *flags, **environment) as environment:
        address = f"http://127.0.0.1:{dashboard}"
        yield Head(address, f"http://127.0.0.1:{metrics}/metrics", environment)


@pytest.fixture(scope="module")
def failing(head, tmp_path_factory) -> subprocess.Popen:
    """A job whose data file is absent; it runs beside the others."""
    folder = tmp_path_factory.mktemp("failing")
    return head.submit("failing", "encode", data_file=folder / "absent.csv", output_dir=folder)


def scraped(url: str) -> str:
    """What Prometheus would read now; nothing while nobody answers."""
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def driver_of(folder: Path) -> psutil.Process:
    """The process of the submitted command that writes to a folder."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[1:3] == ["-m", "jobs.encode"] and str(folder / "out") in words:
            return process
    raise AssertionError("it has ended already")


def test_a_submitted_job_does_what_the_command_does_also_when_it_was_killed_before(
    ray_session, encoder_in_process, head, failing, small_weights, moses_smiles, tmp_path
):
    lines = [*moses_smiles[:60], "nonsense"]
    (tmp_path / "direct").mkdir()
    direct = encode_file(tmp_path / "direct", lines, small_weights, conformer_method="etkdg")
    (tmp_path / "rows.smi").write_text("\n".join(lines))
    flags = {
        "data_file": tmp_path / "rows.smi", "weights": small_weights, "device": "cpu",
        "cache_root": tmp_path / "store", "output_dir": tmp_path / "out", "precision": "fp32",
        "encoder_workers": 1, "encoding_batch_size": 8, "conformer_method": "etkdg",
    }  # fmt: skip
    job = head.submit("killed", "encode", **flags)
    deadline = time.monotonic() + LIMIT_SECONDS
    while not list(tmp_path.glob("store/features/*/*.parquet")):
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver_of(tmp_path).kill()
    output = job.communicate(timeout=LIMIT_SECONDS)[0]
    assert job.returncode != 0, output
    assert "failed" in output.lower()
    assert not (tmp_path / "out/run_summary.json").exists()

    job, told = head.submit("again", "encode", **flags), ""
    while job.poll() is None:
        told += scraped(head.metrics)
        time.sleep(0.2)
    output = job.communicate()[0]
    assert job.returncode == 0, output
    assert "61 in = 60 with features + 1 rejected" in head.told("again/logs")["logs"]
    summary = json.loads((tmp_path / "out/run_summary.json").read_text())
    for name in ("rows_in", "molecules_out", "rejected", "encoder_identity"):
        assert summary[name] == direct[name]
    assert summary["found_in_store"] > 0
    assert summary["encoded"] + summary["found_in_store"] == direct["encoded"]
    tables = [
        KeyedTable(str(root / "store"), "features", summary["encoder_identity"])
        for root in (tmp_path, tmp_path / "direct")
    ]
    keys = [key.decode() for key in tables[1].index().keys]
    np.testing.assert_allclose(*(t.read_features(keys) for t in tables), rtol=0, atol=1e-5)
    # While it ran, Prometheus could read what it did.
    for name in ("conformers", "conformer_busy_seconds", "encoded", "encoder_busy_seconds"):
        values = re.findall(rf"^ray_molsieve_{name}_total{{[^}}]*}} (\S+)$", told, re.M)
        assert values and max(map(float, values)) > 0, name


def test_a_failed_job_has_the_commands_exit_code_and_line(head, failing):
    output = failing.communicate(timeout=LIMIT_SECONDS)[0]
    assert failing.returncode != 0
    assert "jobs.encode: error: " in output and "no such file" in output
    told = head.told("failing")
    assert told["status"] == "FAILED", told
    assert "exit code 2" in told["message"], told
