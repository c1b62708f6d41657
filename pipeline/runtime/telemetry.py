"""What a run says about itself: progress, memory, throughput."""

from __future__ import annotations

import logging
import resource
import sys
import time

import ray

log = logging.getLogger(__name__)
GIB = 1024**3
PROGRESS_SECONDS = 5.0


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
