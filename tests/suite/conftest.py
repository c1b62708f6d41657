"""Fixtures: two splits, with a store and output folders beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from pipeline.suite.running.group import shared_of
from pipeline.suite.running.schedule import Tasks
from tests.made_sets import hiv, moses
from tests.suite.grids import write_split


@pytest.fixture(scope="session")
def home(ray_session, tmp_path_factory) -> Path:
    """Two splits; three test molecules of the second are training molecules of the first."""
    folder = tmp_path_factory.mktemp("suite")
    inside, outside = moses(), [s for s in hiv() if len(s) < 60]
    write_split(folder / "a.json", inside[:60], outside[:40])
    other = [*inside[100:150], *inside[:3], *inside[150:157]]
    write_split(folder / "b.json", other, outside[40:80])
    return folder


class Here:
    """A task that is done in this process, as soon as it is asked for."""

    def __init__(self, work):
        self.work = work

    def remote(self, *given):
        """The reference to what it gives, or raises."""
        given = [ray.get(each) if isinstance(each, ray.ObjectRef) else each for each in given]
        try:
            return ray.put(self.work(*given))
        except Exception as error:
            return ray.remote(num_cpus=0)(_raised).remote(error)


def _raised(error: Exception) -> None:
    raise error


@pytest.fixture
def tasks_here(monkeypatch) -> None:
    """A suite's tasks need no workers, which save the seconds that their imports take.

    For tests of what a suite makes of its tasks; those of `test_run` have workers.
    """
    monkeypatch.setattr(Tasks, "other", lambda self, work, settings: Here(work))
    monkeypatch.setattr(
        Tasks, "shared", lambda self, group: Here(shared_of).remote(
            group.molecules, group.encoded, group.others, group.settings, group.device
        )
    )  # fmt: skip
