"""A Ray that a busy machine does not start in time."""

from __future__ import annotations

import pytest
import ray

from pipeline.runtime.errors import InputError
from pipeline.runtime.nodes import cluster


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_ray_is_started_again_where_it_did_not_start_in_time(monkeypatch, failures):
    attempts = []

    def init(**how):
        attempts.append(how)
        if len(attempts) <= failures:
            raise Exception("The current node timed out during startup. This could happen")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    if failures < cluster.STARTS:
        cluster.init_ray(num_cpus=1)
        assert attempts == [{"num_cpus": 1}] * (failures + 1)
    else:
        with pytest.raises(InputError, match="too busy; wait, and run again"):
            cluster.init_ray()


def test_other_faults_are_raised_at_once(monkeypatch):
    monkeypatch.setattr(ray, "init", lambda **how: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cluster.init_ray()
