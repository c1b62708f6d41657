"""Heads of Ray clusters as users start them, by `ray start` in a process of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil

from pipeline.runtime.nodes.cluster import STARTS
from tests.commands import LIMIT_SECONDS

RAY = Path(sys.executable).with_name("ray")


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        return [port] if count == 1 else [port, *free_ports(count - 1)]


@contextmanager
def started_head(folder: Path, port: int, *flags: str, **environment: str) -> Iterator[dict]:
    """`ray start --head` until the end of the block; the environment in which it runs.

    Parameters
    ----------
    folder : for its log.
    port : of the cluster.
    flags : of `ray start`.
    """
    temporary = tempfile.mkdtemp(prefix="head")  # a short path: sockets lie in it
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "RAY_TMPDIR": temporary,  # else other commands find this cluster
        **environment,
    }
    process = None
    try:
        for attempt in range(STARTS):
            process = _start(folder, port, flags, environment)
            if process.poll() is None:
                break
            assert attempt < STARTS - 1, (folder / "log.txt").read_text()
        yield environment
    finally:
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            for each in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        process.kill()
        process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def _start(
    folder: Path, port: int, flags: Sequence[str], environment: dict[str, str]
) -> subprocess.Popen:
    """A head that runs; or one that gave up, as Ray does on a busy machine after 30 s."""
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen(
            [RAY, "start", "--head", "--block", f"--port={port}", *flags],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + LIMIT_SECONDS
    while "Ray runtime started" not in (folder / "log.txt").read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            break
        time.sleep(0.1)
    return process
