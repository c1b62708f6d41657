"""What a run says about itself: progress, memory, throughput."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray

log = logging.getLogger(__name__)
GIB = 1024**3
PROGRESS_SECONDS = 5.0
LOAD_SECONDS = 1.0  # between two looks at a GPU


def configure_logging() -> None:
    """Send the pipeline's log to standard error, one plain line an event."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("pipeline").setLevel(logging.INFO)


def reset_peak_memory() -> None:
    """Forget earlier peaks of this process's memory, so that a phase reports its own.

    The peak of resident memory can be forgotten on Linux alone.
    """
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_memory_gb() -> float:
    """Most GPU memory that torch held in this process since the last reset, GiB; 0 without one."""
    torch = sys.modules.get("torch")  # a process that never imported it holds none
    if torch is None or not torch.cuda.is_available():
        return 0.0
    return torch.cuda.max_memory_allocated() / GIB


def peak_resident_memory_gb() -> float:
    """Most resident memory that this process had since the last reset, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def node() -> str:
    """The Ray node that this process is on, by the first digits of its id; outside of Ray, none."""
    if not ray.is_initialized():
        return ""
    return ray.get_runtime_context().get_node_id()[:8]


def gpu_load() -> dict[str, float]:
    """Utilisation (percent) and power (watts) of this process's GPU, by NVML; empty without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    try:
        return {
            "gpu_utilisation": float(torch.cuda.utilization()),
            "gpu_power_watts": torch.cuda.power_draw() / 1000,
        }
    except Exception:  # no NVML, or a GPU that does not tell; figures must not end a run
        return {}


class Progress:
    """Logs how far a stage is: units done, total, percent, rate and time left.

    Parameters
    ----------
    what : name of the stage.
    total : molecules, or other units, that it will handle; None if nobody knows.
    work : what all of them are expected to take, in any unit; None if each takes the same. The time
        left goes by it.
    unit : what is counted, in the plural.
    """

    def __init__(
        self, what: str, total: int | None, work: float | None = None, unit: str = "molecules"
    ):
        self.what, self.total, self.done, self.unit = what, total, 0, unit
        self.work, self.worked = work, 0.0
        self.started = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the stage started."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Molecules a second since the stage started."""
        return self.done / max(self.seconds, 1e-9)

    def advance(self, count: int, work: float = 0.0) -> None:
        """Count molecules as done, and their work; logs a line every few seconds and at the end."""
        self.done += count
        self.worked += work
        now = time.monotonic()
        if now - self._last >= PROGRESS_SECONDS or self.done == self.total:
            self._last = now
            log.info("%s", self)

    @property
    def seconds_left(self) -> float:
        """Seconds that the rest will take, if it goes on like this."""
        done, total = (self.done, self.total) if self.work is None else (self.worked, self.work)
        return self.seconds * max(0.0, total - done) / max(done, 1e-9)

    def __str__(self) -> str:
        if self.total is None:
            return f"{self.what}: {self.done:,} {self.unit}, {self.rate:.1f} {self.unit}/s"
        percent = 100 * self.done / max(self.total, 1)
        return (
            f"{self.what}: {self.done:,}/{self.total:,} {self.unit} ({percent:.1f} %), "
            f"{self.rate:.1f} {self.unit}/s, {self.seconds_left:.0f} s left"
        )


class DeviceLoad:
    """How busy a training keeps its device: the share of its steps' time that it waits for data,
    and a GPU's utilisation and power.

    A GPU works on while its driver waits, so what it itself waits is at most that.
    """

    def __init__(self):
        self._sampled = time.perf_counter()
        self._step_began: float | None = None
        self._forget()

    def _forget(self) -> None:
        self._waited = self._seconds = 0.0
        self._loads: list[dict[str, float]] = []

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a batch is asked for; the first of a step begins it."""
        began = time.perf_counter()
        if self._step_began is None:
            self._step_began = began
        yield
        self._waited += time.perf_counter() - began

    def step_done(self) -> None:
        """At the end of each step; asks the GPU now and then."""
        now = time.perf_counter()
        self._seconds += now - self._step_began
        self._step_began = None
        if now - self._sampled >= LOAD_SECONDS:
            self._sampled = now
            self._loads.append(gpu_load())

    def take(self) -> dict[str, float]:
        """`waiting_share` of the steps since this was last asked, and means of `gpu_load`."""
        told = {"waiting_share": self._waited / max(self._seconds, 1e-9)}
        for name in self._loads[0] if self._loads else ():
            told[name] = sum(load.get(name, 0.0) for load in self._loads) / len(self._loads)
        self._forget()
        return told
