"""Commands as their user runs them: processes of their own, and the one line of an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parent.parent
LIMIT_SECONDS = 120


def start_job(job: str, folder: Path, flags: dict[str, Any]) -> subprocess.Popen:
    """A command, its output in the folder's log.txt; RAY_ADDRESS joins it to the tests' Ray."""
    folder.mkdir(exist_ok=True)
    argv = [sys.executable, "-m", f"jobs.{job}"]
    argv += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    with open(folder / "log.txt", "a") as log:
        return subprocess.Popen(argv, cwd=REPOSITORY, stdout=log, stderr=log)


def wait_for_success(process: subprocess.Popen, folder: Path) -> None:
    """Wait until a command has ended well."""
    code = process.wait(timeout=LIMIT_SECONDS)
    log = (folder / "log.txt").read_text()
    assert code == 0, log
    assert "Traceback" not in log


def descendants(ancestor: int, words: str) -> list[psutil.Process]:
    """Processes below one, at any depth, that have some words in their command."""
    return [p for p in psutil.Process(ancestor).children(recursive=True) if words in _command(p)]


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
