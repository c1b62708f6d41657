"""Which Ray a command joins or starts, and that what cannot be joined is told at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import ray
from ray.exceptions import AuthenticationError

from pipeline.runtime.errors import InputError
from pipeline.runtime.nodes import address, cluster
from pipeline.runtime.nodes.address import LONGEST_FOLDER, ray_to_use
from pipeline.runtime.nodes.cluster import start_ray
from tests.clusters import free_ports
from tests.commands import REPOSITORY, assert_one_line


@pytest.fixture
def here(monkeypatch, tmp_path) -> Path:
    """No cluster is named, and nobody is waited for; the folder where `ray start` leaves a note."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(address, "WAIT_SECONDS", 0)
    monkeypatch.setattr(address, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(address, "LONGEST_FOLDER", 1000)
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray"


def closed() -> str:
    """An address where nobody listens."""
    (port,) = free_ports(1)
    return f"127.0.0.1:{port}"


NO_ADDRESSES = {
    "http://10.0.0.1:8265": ("ray job submit", "10.0.0.1:6379"),
    "https://head": ("ray job submit", "head:6379"),
    "ray://head:10001": ("client is not supported", "HOST:PORT", "ray job submit"),
    "http://[": ("ray job submit",),
    "[:6379": ("not an address",),
    "garbage": ("not an address", "HOST:PORT"),
    "head:port": ("not an address",),
    "head:70000": ("not an address",),
    "10.0.0.1": ("not an address",),
    "a head:6379": ("not an address",),
    "s3://bucket:80": ("not an address",),
}


@pytest.mark.parametrize("named", NO_ADDRESSES)
def test_what_is_no_address_is_told(here, monkeypatch, named):
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(InputError) as error:
        ray_to_use()
    for part in (f"RAY_ADDRESS={named}: ", *NO_ADDRESSES[named]):
        assert part in str(error.value)


def test_an_address_where_nobody_or_something_else_listens_is_told(here, monkeypatch):
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        for named in (closed(), f"127.0.0.1:{mute.getsockname()[1]}", "no.such.host.invalid:6379"):
            monkeypatch.setenv("RAY_ADDRESS", named)
            with pytest.raises(InputError, match="no Ray cluster answers there"):
                ray_to_use()


def test_a_head_that_starts_late_is_waited_for(here, monkeypatch, ray_session):
    gcs = ray.get_runtime_context().gcs_address
    monkeypatch.setattr(address, "WAIT_SECONDS", 60)
    connect, tries = socket.create_connection, []

    def late(*arguments):
        tries.append(arguments)
        if len(tries) == 1:
            raise ConnectionRefusedError
        return connect(*arguments)

    monkeypatch.setattr(socket, "create_connection", late)
    monkeypatch.setenv("RAY_ADDRESS", gcs)
    assert ray_to_use() == {} and len(tries) == 2


def test_a_cluster_that_has_left_a_note_is_joined_if_it_is_there(here, monkeypatch, ray_session):
    note = here / "ray_current_cluster"
    assert ray_to_use() == {"address": "local"}
    note.write_text(ray.get_runtime_context().gcs_address)
    assert ray_to_use() == {}
    note.write_text(closed())
    assert ray_to_use() == {"address": "local"}  # else Ray would wait for it
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert ray_to_use() == {"address": "local"}
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(InputError, match=f"RAY_ADDRESS=auto: {note} names"):
        ray_to_use()


def test_auto_without_a_cluster_is_told(here, monkeypatch):
    def nothing(**arguments):
        assert "address" not in arguments
        raise ConnectionError("Could not find any running Ray instance. Please …")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nothing)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(InputError, match="RAY_ADDRESS=auto: .* Could not find any running Ray"):
        start_ray()


@pytest.mark.parametrize("mode, told", [
    ("", "export RAY_AUTH_MODE=token"), ("token", "~/.ray/auth_token must hold the same as on its"),
])  # fmt: skip
def test_what_to_do_about_tokens_is_told_where_a_cluster_refuses(mode, told, here, monkeypatch):
    def refused(**arguments):
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.setattr(cluster, "ray_to_use", dict)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(InputError, match=f"RAY_ADDRESS=10.0.0.1:6379: .* {told}"):
        start_ray()


def test_a_missing_token_is_told(here, monkeypatch):
    def without_token(**arguments):
        raise AuthenticationError("Token authentication is enabled but no token was found")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", without_token)
    with pytest.raises(InputError, match="no token: .* ray get-auth-token --generate"):
        start_ray()


def test_only_a_folder_that_is_too_long_is_left(here, monkeypatch, caplog):
    monkeypatch.setattr(address, "LONGEST_FOLDER", LONGEST_FOLDER)
    caplog.set_level("INFO", "pipeline")
    fits, long = "/" + "x" * (LONGEST_FOLDER - 1), "/scratch/" + "é" * 20  # of two bytes each
    monkeypatch.setenv("TMPDIR", fits)
    monkeypatch.setenv("RAY_TMPDIR", long)
    assert ray_to_use() == {"address": "local"}
    assert (os.environ["TMPDIR"], os.environ["RAY_TMPDIR"]) == (fits, "/tmp")
    (line,) = caplog.messages
    assert f"RAY_TMPDIR={long}" in line and "/tmp" in line
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", long)
    assert ray_to_use() == {"address": "local"}
    assert os.environ["TMPDIR"] == "/tmp" and "RAY_TMPDIR" not in os.environ


def started(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Python code of a process that no cluster is named to."""
    others = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    return subprocess.run(
        [sys.executable, "-c", code], env=others | environment, cwd=REPOSITORY,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_ray_starts_where_the_temporary_folder_has_a_long_path(tmp_path):
    long = tmp_path / ("long" * 20)
    long.mkdir()
    code = (
        "import ray; from pipeline.runtime.telemetry import configure_logging\n"
        "from pipeline.runtime.nodes.cluster import start_ray\n"
        "configure_logging(); start_ray(); print(ray.get(ray.remote(lambda: 6 * 7).remote()))"
    )
    done = started(code, TMPDIR=str(long))
    assert done.stdout.split() == ["42"], done.stderr
    assert f"TMPDIR={long}: the path is too long for Ray's sockets" in done.stderr
    assert "dashboard" not in done.stderr  # its processes have sockets too


def test_a_command_says_within_seconds_that_nobody_answers(tmp_path):
    (tmp_path / "one.smi").write_text("C\n")
    named = closed()
    argv = [
        sys.executable, "-m", "jobs.encode", "--data_file", str(tmp_path / "one.smi"),
        "--weights", "mini", "--output_dir", str(tmp_path), "--cache_root", str(tmp_path),
    ]  # fmt: skip
    started_at = time.monotonic()
    done = subprocess.run(
        argv, env={**os.environ, "RAY_ADDRESS": named}, cwd=REPOSITORY, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert_one_line(done.returncode, done.stderr, "encode", f"RAY_ADDRESS={named}")
    assert time.monotonic() - started_at < 120  # 14 minutes before
