"""A shell in which the pages' commands run: an empty home, a copy of the repository, no network."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from pipeline.runtime.nodes.cluster import STARTS
from tests.commands import REPOSITORY
from tests.docs.blocks import Command

# Namespaces of its own: ports are the shell's alone, `ray stop` ends no other test's Ray, and all
# that runs there ends with it, and with the tests.
ALONE = (
    "setpriv --pdeathsig KILL unshare --map-root-user --net --pid --fork --kill-child --mount-proc"
)
LOOPBACK_UP = (
    "import fcntl, socket, struct; "
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 1 | 64))"  # SIOCSIFFLAGS
)
FOREIGN = ("RAY_", "MOLSIEVE_", "UNIMOL_", "HF_", "PYTHON", "PYTEST_", "XDG_")
LIMIT_SECONDS = 1800


@cache
def can_be_alone() -> bool:
    """Whether this machine gives namespaces to its users."""
    if not (shutil.which("setpriv") and shutil.which("unshare")):
        return False
    up = [sys.executable, "-c", LOOPBACK_UP]
    return subprocess.run([*ALONE.split(), *up], capture_output=True).returncode == 0


def copy_repository(folder: Path) -> None:
    """The files that git has or would add, and this interpreter's environment as .venv."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)


class Failed(AssertionError):
    """A command that did not end with 0: which, and what it said."""


def _patient(text: str) -> str:
    """A command; `ray start` again and again, as it gives up after 30 s on a busy machine."""
    if "ray start" not in text:
        return text
    return f"tries=0; until\n{text}\ndo test $((++tries)) -lt {STARTS}; done"


def run(commands: Sequence[Command], folder: Path, home: Path) -> float:
    """Run commands in one bash, in a folder, until one fails.

    Returns
    -------
    CPU seconds of all that they started, daemons too where `can_be_alone`.

    Raises
    ------
    Failed
        With the command and the end of its output.
    """
    log, reached = home.with_suffix(".log"), home.with_suffix(".reached")
    numbered = (
        f"echo {number} > {shlex.quote(str(reached))}\n{_patient(command.text.rstrip())}\n"
        for number, command in enumerate(commands)
    )
    up = f"{shlex.quote(sys.executable)} -c {shlex.quote(LOOPBACK_UP)}\n" if can_be_alone() else ""
    script = f"{up}set -e -o pipefail\n{''.join(numbered)}"
    temporary = tempfile.mkdtemp(prefix="docs")  # a short path: sockets lie in it
    environment = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)} | {
        "HOME": str(home),
        "RAY_TMPDIR": temporary,  # else commands outside find what runs here
    }
    before = getrusage(RUSAGE_CHILDREN)
    try:
        with open(log, "w") as output:
            code = subprocess.run(
                [*(ALONE.split() if can_be_alone() else []), "bash", "-c", script],
                cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, timeout=LIMIT_SECONDS,
            ).returncode  # fmt: skip
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if code:
        command = commands[int(reached.read_text())]
        told = log.read_text().splitlines()[-60:]
        raise Failed(
            "\n".join([f"line {command.line}: {command.text}", f"ended with {code}", *told])
        )
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
