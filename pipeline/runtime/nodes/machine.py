"""What this machine offers this process."""

from __future__ import annotations

import os
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container (cgroup v2): "QUOTA PERIOD" or "max .."


def usable_cores() -> int:
    """Cores that this process may use; where the system does not tell (macOS), all.

    A container's share of the cores counts, rounded up.
    """
    tells = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if tells else os.cpu_count() or 1
    return min(cores, _quota() or cores)


def _quota() -> int | None:
    try:
        quota, period = map(int, CPU_QUOTA.read_text().split())
    except (OSError, ValueError):  # there is none
        return None
    return max(1, -(-quota // period))
