"""Workers of the tests' Ray are forks, each with an environment and random numbers of its own."""

from __future__ import annotations

import os
import sys

import numpy as np
import psutil
import ray


def told(_) -> tuple[int, str | None, bool, float]:
    imported = "torch" in sys.modules  # nothing here imports it
    return os.getppid(), os.environ.get("TOLD"), imported, np.random.random()


def test_workers_are_forks_that_share_imports_and_nothing_else(ray_session):
    both = ray.get(
        [
            ray.remote(told).options(runtime_env={"env_vars": {"TOLD": word}}).remote(0)
            for word in ("one", "other")
        ]
    )
    for parent, _, imported, _ in both:
        assert "forked_workers.py --serve" in " ".join(psutil.Process(parent).cmdline())
        assert imported
    assert [word for _, word, _, _ in both] == ["one", "other"]
    assert both[0][3] != both[1][3]
