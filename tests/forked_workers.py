"""Ray workers as forks of a process that has imported what they need.

A Ray worker is a new interpreter, and most import PyTorch, pandas and pyarrow: 2 to 5 s of a core,
for tests whose workers then work for milliseconds. This file stands in for the script by which a
raylet starts a worker (`python FILE COMMAND`). It asks such a process (`python FILE --serve FD`)
for a fork of itself, and in the fork Ray's own worker runs, with the environment, folder and output
that its raylet chose. Ray itself is imported in the fork, for it reads its environment then.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

SOCKET = "MOLSIEVE_FORKED_WORKERS"  # environment: its path; not there: as Ray starts them
CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="
OTHERS = ("command_prefix", "override_worker_entrypoint")
# What workers import beside Ray and this project, none of which starts a thread of Python's.
IMPORTED = (
    "numpy", "pandas", "pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet", "torch",
    "torch.distributed.checkpoint.state_dict", "torch.distributed.fsdp", "torch.nn.parallel",
    "torch.utils.data", "rdkit.Chem.AllChem", "scipy.stats", "aiohttp", "fsspec", "jsonschema",
    "pydantic", "requests", "yaml",
)  # fmt: skip


def serve_forks() -> subprocess.Popen:
    """Start the process that forks; it ends when this one does."""
    path = os.path.join(tempfile.mkdtemp(prefix="molsieve-"), "forks")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)  # who asks while it imports waits
        number = listener.fileno()
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(number)], stdin=subprocess.PIPE,
            pass_fds=[number], start_new_session=True, env=environment, cwd="/",
        )  # fmt: skip
    os.environ[SOCKET] = path
    return process


def worker_of(argv: list[str]) -> list[str]:
    """A worker's command, of a raylet's; what was given as runtime environment applies here."""
    context, words = {}, []
    for word in argv:
        if word.startswith(CONTEXT):
            context = json.loads(word.removeprefix(CONTEXT) or "{}")
        elif not word.startswith(LANGUAGE):
            words.append(word)
    if f"{LANGUAGE}PYTHON" not in argv or any(map(context.get, OTHERS)):
        import ray

        folder = os.path.join(os.path.dirname(ray.__file__), "_private", "workers")
        return [sys.executable, os.path.join(folder, "setup_worker.py"), *argv]
    for name, value in (context.get("env_vars") or {}).items():
        os.environ[name] = re.sub(r"\$\{[A-Z0-9_]+\}", "", os.path.expandvars(value))
    return [context.get("py_executable") or sys.executable, *words]


def is_forked(argv: list[str]) -> bool:
    """Have the worker of a command forked; False where that cannot be."""
    if SOCKET not in os.environ or argv[0] != sys.executable or argv[1].endswith("setup_worker.py"):
        return False
    request = {"argv": argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}
    request = json.dumps({**request, "raylet": os.getppid()}).encode()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.environ[SOCKET])
            socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
            connection.sendall(request)
            return connection.recv(1) == b"+"
    except OSError as error:
        print(f"a Ray worker is no fork: {error}", file=sys.stderr)
        return False


def forks_of(raylet: int) -> list[int]:
    """Process numbers of a raylet's workers, ended ones among them; they are not its children."""
    folder = Path(os.environ[SOCKET]).parent if SOCKET in os.environ else None
    return [int(each.name) for each in folder.glob(f"{raylet}/*")] if folder else []


def serve(listener: socket.socket) -> None:
    """Fork for all who ask, until who started this has ended; become what a fork is to be."""
    import gc
    import importlib
    import signal

    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each fork copies the pages that its collections touch
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers
    folder = Path(listener.getsockname()).parent
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            shutil.rmtree(folder)
            return
        connection, _ = listener.accept()
        with connection:
            size, streams, _, _ = socket.recv_fds(connection, 8, 3)
            request = b""
            while len(request) < int.from_bytes(size, "big"):
                if not (part := connection.recv(1 << 20)):
                    break  # who asked was killed
                request += part
            if request and len(request) == int.from_bytes(size, "big"):
                asked = json.loads(request)
                (forks := folder / str(asked.pop("raylet"))).mkdir(exist_ok=True)
                if (fork := os.fork()) == 0:
                    break
                (forks / str(fork)).touch()
                with suppress(OSError):
                    connection.sendall(b"+")
        for stream in streams:
            os.close(stream)
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    become(streams=streams, **asked)


def become(argv: list[str], env: dict[str, str], cwd: str, streams: list[int]) -> None:
    """Run Ray's worker in this fork."""
    os.setpgid(0, 0)  # raylets end whole groups
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.modules["numpy"].random.seed()  # else all forks draw the same
    paths = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = [os.path.dirname(argv[0]), *paths]
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(socket.socket(fileno=int(sys.argv[2])))
    elif not is_forked(command := worker_of(sys.argv[1:])):
        os.execv(command[0], command)
