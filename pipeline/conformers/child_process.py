"""RDKit in a child process that may be killed: a molecule that it hangs on costs itself alone.

`IsolatedEmbedder` asks, `serve` is the child's loop.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import select
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
from rdkit import RDLogger

from pipeline.conformers.conformer import METHODS, Conformer
from pipeline.conformers.rdkit_embedder import embed
from pipeline.runtime.errors import InputError, RowRejected

START_LIMIT_SECONDS = 120
DEFAULT_LIMIT_GB = 4.0
NICE = 10  # where cores are shared, an encoder with a full batch goes first
ATTEMPTS = 2
# A child that RDKit hangs in ends by itself so long after the limit, if nobody is left to kill it.
ALARM_SECONDS, MOST_SECONDS = 10, 10**8
ADVICE = (
    "standard error, or the log of its Ray worker, says why. If it is memory, raise "
    "--conformer_gb, which is {:g}"
)
CHILD = "from pipeline.conformers.child_process import serve; serve({}, {})"


class IsolatedEmbedder:
    """`embed` in a child process that is killed when a molecule exceeds a time limit.

    Parameters
    ----------
    seed, hydrogens, method : as `embed`.
    limit_seconds : wall-clock time that one molecule may take.
    limit_gb : memory that the child may take, GiB.
    nice : how far the child steps back where cores are shared.
    advice : what to do where a child does not start; {:g} in it becomes `limit_gb`.
    """

    def __init__(
        self,
        *,
        seed: int,
        hydrogens: bool,
        limit_seconds: float,
        limit_gb: float = DEFAULT_LIMIT_GB,
        method: str = METHODS[0],
        nice: int = NICE,
        advice: str = ADVICE,
    ):
        self.limit_seconds, self.limit_gb, self.nice = limit_seconds, limit_gb, nice
        self.recipe = {"seed": seed, "hydrogens": hydrogens, "method": method}
        self.advice = advice
        self._child: subprocess.Popen | None = None
        self._ended = False

    def embed(self, smiles: str) -> Conformer:
        """As `embed`; RowRejected also if the child exceeds a limit, or dies each time.

        InputError if it does not start, which is no molecule's fault.
        """
        alarm = int(min(self.limit_seconds + ALARM_SECONDS, MOST_SECONDS))
        request = {"smiles": smiles, "alarm": alarm, **self.recipe}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._asked(request)
                break
            except TimeoutError:
                self.close()
                raise RowRejected(
                    f"conformer generation took more than {self.limit_seconds:g} s"
                ) from None
            except (EOFError, BrokenPipeError):  # or the system killed it for others' memory
                code = self.close()
                if attempt == ATTEMPTS or self._ended:
                    raise RowRejected(
                        f"RDKit crashed on it {ATTEMPTS} times (exit code {code})"
                    ) from None
            except (
                BaseException
            ):  # interrupted: an answer on its way must not meet another molecule
                self.close()
                raise
        if "reason" in answer:
            raise RowRejected(answer["reason"])
        coords = np.frombuffer(bytes.fromhex(answer["coords"]), dtype=np.float32).reshape(-1, 3)
        return Conformer(np.array(answer["atoms"], dtype=np.uint8), coords, answer["kind"])

    def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        """The child's answer."""
        child = self._running_child()
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        return json.loads(_read_line(child, self.limit_seconds))

    def embed_or_reject(self, smiles: str) -> Conformer | RowRejected:
        """As `embed`, with the rejection returned."""
        try:
            return self.embed(smiles)
        except RowRejected as rejection:
            return rejection

    def close(self) -> int | None:
        """End the child, if there is one, and return its exit code."""
        if self._child is None:
            return None
        self._child.kill()
        code = self._child.wait()
        self._child = None
        return code

    def end(self) -> None:
        """Kill the child for good, also from another thread while it is at work."""
        self._ended = True
        child = self._child
        if child is not None:
            child.kill()

    def _running_child(self) -> subprocess.Popen:
        for attempt in range(1, ATTEMPTS + 1):
            if self._child is not None:
                break
            try:
                self._child = self._started_child()
                _read_line(self._child, START_LIMIT_SECONDS)  # "ready"
                if self._ended:
                    self._child.kill()
            except (TimeoutError, EOFError, OSError) as error:
                code = self.close()
                if attempt == ATTEMPTS or self._ended:
                    raise InputError(
                        f"the process that makes conformers does not start on {platform.node()} "
                        f"(exit code {code}{f', {error}' if str(error) else ''}); "
                        f"{self.advice.format(self.limit_gb)}"
                    ) from None
        return self._child

    def _started_child(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD.format(self.limit_gb, self.nice)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)},
        )

    def __del__(self):
        self.close()


def _read_line(child: subprocess.Popen, limit_seconds: float) -> bytes:
    """One line from the child's stdout; it writes only in answer, so no line is split."""
    deadline, received = time.monotonic() + limit_seconds, b""
    while not received.endswith(b"\n"):
        ready, _, _ = select.select([child.stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        chunk = os.read(child.stdout.fileno(), 1 << 20)
        if not chunk:
            raise EOFError
        received += chunk
    return received


def serve(limit_gb: float, nice: int) -> None:
    """The child's loop: one JSON request a line on stdin, one JSON answer a line on stdout.

    A request has `smiles`, whole seconds after which it ends (`alarm`), and what `embed` takes.

    Parameters
    ----------
    limit_gb : address space that this process may take, GiB.
    nice : how far it steps back where cores are shared.
    """
    limit = int(limit_gb * 1024**3)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which kills this one
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends a process also within RDKit
    os.nice(nice)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever RDKit prints must not mix with the answers
    RDLogger.DisableLog("rdApp.*")  # the reason for each rejected molecule is kept with it
    embed("CC")  # or it ends here: no memory for any molecule
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(request.pop("alarm"))
        try:
            made = embed(request.pop("smiles"), **request)
            answer = {
                "atoms": made.atoms.tolist(),
                "coords": made.coords.tobytes().hex(),
                "kind": made.kind,
            }
        except RowRejected as rejection:
            answer = {"reason": str(rejection)}
        except MemoryError:
            answer = {"reason": f"RDKit needs more than {limit_gb:g} GiB for it"}
        signal.alarm(0)
        print(json.dumps(answer), file=answers, flush=True)
