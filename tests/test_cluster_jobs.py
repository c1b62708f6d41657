"""Jobs submitted to a head of a cluster: status, exit code, logs, results, metrics."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.commands import LIMIT_SECONDS, REPOSITORY
from tests.test_encode import encode_file

RAY = Path(sys.executable).with_name("ray")


class Head(NamedTuple):
    """A running head: what `ray job` needs to reach it, and its Prometheus endpoint."""

    address: str
    metrics: str
    environment: dict[str, str]

    def job(self, *words: str) -> subprocess.Popen:
        """`ray job WORDS`."""
        command, *others = words
        return subprocess.Popen(
            [RAY, "job", command, "--address", self.address, *others],
            env=self.environment, cwd=REPOSITORY, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def submit(self, name: str, job: str, **flags: object) -> subprocess.Popen:
        """As the README submits: the working directory travels to the cluster."""
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        python = [sys.executable, "-m", f"jobs.{job}", *words]
        return self.job("submit", "--submission-id", name, "--working-dir", ".", "--", *python)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator[Head]:
    """`ray start --head` with its dashboard server and token authentication."""
    folder = tmp_path_factory.mktemp("head")
    gcs, dashboard, agent, metrics = free_ports(4)
    (folder / "token").write_text(secrets.token_hex(32))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="head"),  # else other commands find this cluster
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_metrics_report_interval_ms": "500",
    }
    log = open(folder / "log.txt", "w")
    process = subprocess.Popen(
        [
            RAY, "start", "--head", "--block", f"--port={gcs}", "--num-cpus=2",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}",
        ],
        env=environment, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + LIMIT_SECONDS
        while "Ray runtime started" not in (folder / "log.txt").read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        address = f"http://127.0.0.1:{dashboard}"
        yield Head(address, f"http://127.0.0.1:{metrics}/metrics", environment)
    finally:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            each.kill()
        process.wait()


def scraped(url: str) -> str:
    """What Prometheus would read now; nothing while nobody answers."""
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def test_a_submitted_job_does_what_the_command_does(
    ray_session, head, small_weights, moses_smiles, tmp_path
):
    lines = [*moses_smiles[:60], "nonsense"]
    (tmp_path / "direct").mkdir()
    direct = encode_file(tmp_path / "direct", lines, small_weights)
    (tmp_path / "rows.smi").write_text("\n".join(lines))
    job = head.submit(
        "encoding", "encode", data_file=tmp_path / "rows.smi", weights=small_weights, device="cpu",
        cache_root=tmp_path / "store", output_dir=tmp_path / "out", precision="fp32",
        encoder_workers=1, encoding_batch_size=8,
    )  # fmt: skip
    told = ""
    while job.poll() is None:
        told += scraped(head.metrics)
        time.sleep(0.2)
    output = job.communicate()[0]
    assert job.returncode == 0, output
    logs = head.job("logs", "encoding").communicate()[0]
    assert "61 in = 60 with features + 1 rejected" in logs
    summary = json.loads((tmp_path / "out/run_summary.json").read_text())
    for name in ("rows_in", "molecules_out", "rejected", "encoded", "encoder_identity"):
        assert summary[name] == direct[name]
    # While it ran, Prometheus could read what it did.
    for name in ("conformers", "conformer_busy_seconds", "encoded", "encoder_busy_seconds"):
        values = re.findall(rf"^ray_molsieve_{name}_total{{[^}}]*}} (\S+)$", told, re.M)
        assert values and max(map(float, values)) > 0, name


def test_a_failed_job_has_the_commands_exit_code_and_line(head, tmp_path):
    job = head.submit("failing", "encode", data_file=tmp_path / "absent.csv", output_dir=tmp_path)
    output = job.communicate()[0]
    assert job.returncode != 0
    assert "jobs.encode: error: " in output and "no such file" in output
    status = re.sub(r"\x1b\[\d+m", "", head.job("status", "failing").communicate()[0])
    assert "failed" in status, status
    assert "exit code 2" in status, status
