"""Ray as the tests start it: without what no test looks at, and with workers that start sooner.

A Ray is a dozen processes, and on two cores they take more time than most tests do. What users
start themselves (`ray start`, a command without RAY_ADDRESS) has all of them in the tests too.
"""

from __future__ import annotations

import functools
import os

from ray._private import ray_constants
from ray._private.parameter import RayParams

from tests import forked_workers

# Ray's daemons report to each other ten times a second and look at all processes four times; idle
# they took 6 % of a core for as long as the tests ran, and so take half of that.
SETTINGS = {
    "enable_metrics_collection": "0",
    "event_stats": "0",
    "memory_monitor_refresh_ms": "1000",
    "raylet_report_resources_period_milliseconds": "500",
    "task_events_report_interval_ms": "0",  # for the dashboard
}
WITHOUT = {"include_log_monitor": False, "no_monitor": True}  # the latter is the autoscaler's


def start_lean() -> None:
    """From now on this process starts Ray so, by `ray.init` or as a `Cluster`."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(f"RAY_{name}", value)
    serve_forks, made = functools.cache(forked_workers.serve_forks), RayParams.__init__

    def lean(self: RayParams, *args, **kwargs) -> None:
        serve_forks()
        made(self, *args, **(WITHOUT | kwargs))

    RayParams.__init__ = lean
    ray_constants.SETUP_WORKER_FILENAME = forked_workers.__file__
