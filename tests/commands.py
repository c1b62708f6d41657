"""Commands as their user runs them: processes of their own, and the one line of an error."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.forked_workers import forks_of

REPOSITORY = Path(__file__).parent.parent
LIMIT_SECONDS = 300  # no test waits so long where all is well, on however slow a machine


STARTED: list[subprocess.Popen] = []  # ended after each test, if that has not waited for them


def start_job(
    job: str, folder: Path, flags: dict[str, Any], held: bool = False
) -> subprocess.Popen:
    """A command, its output in the folder's log.txt; RAY_ADDRESS joins it to the tests' Ray.

    Parameters
    ----------
    held : it waits half way if the test asks for that; see `tests.held`.
    """
    folder.mkdir(exist_ok=True)
    argv = [sys.executable, "-m", *(["tests.held", job] if held else [f"jobs.{job}"])]
    argv += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    with open(folder / "log.txt", "a") as log:
        STARTED.append(subprocess.Popen(argv, cwd=REPOSITORY, stdout=log, stderr=log))
    return STARTED[-1]


def wait_until(condition: Callable[[], object], process: subprocess.Popen, folder: Path) -> None:
    """Wait for what a command does while it runs."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert process.poll() is None, (folder / "log.txt").read_text()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def wait_for_success(process: subprocess.Popen, folder: Path) -> None:
    """Wait until a command has ended well."""
    code = process.wait(timeout=LIMIT_SECONDS)
    log = (folder / "log.txt").read_text()
    assert code == 0, log
    assert "Traceback" not in log and "UserWarning" not in log


def descendants(ancestor: int, words: str) -> list[psutil.Process]:
    """Processes below one, at any depth, that have some words in their command."""
    below = _below(ancestor)
    for raylet in [ancestor, *below]:
        for fork in forks_of(raylet):
            with suppress(psutil.NoSuchProcess):
                below |= {fork: psutil.Process(fork)} | _below(fork)
    return [process for process in below.values() if words in _command(process)]


def _below(ancestor: int) -> dict[int, psutil.Process]:
    return {each.pid: each for each in psutil.Process(ancestor).children(recursive=True)}


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


def assert_one_line(code: int, err: str, job: str, *told: str) -> None:
    """Bad input: exit code 2 and one line of the job's, which tells all of these."""
    lines = err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1, err
    assert lines[0].startswith(f"jobs.{job}: error: ")
    for part in told:
        assert part in lines[0]
