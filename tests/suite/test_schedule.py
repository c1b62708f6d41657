"""Which trainings are tasks of their own, and in which order tasks start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray

from pipeline.suite.cells import Cell
from pipeline.suite.running import schedule


@pytest.fixture
def cells():
    """Of each of some trainings its cell."""
    trainings = [
        SimpleNamespace(detector=name, is_head=name != "knn", settings=None)
        for name in ("knn", "dpo", "bce", "dpo")
    ]
    return [[Cell(str(place), each, "a")] for place, each in enumerate(trainings)]


def test_heads_train_together_but_for_those_of_the_last_group(cells, home, monkeypatch):
    """Which would else train on one core while another has nothing to do; heads come first."""
    started: list[list[str]] = []

    def part(self, shared, part, output_dir):
        started.append(sorted({each[0].training.detector for each in part}))
        return ray.put({cell.key: "not made" for each in part for cell in each})

    monkeypatch.setattr(schedule.Tasks, "part", part)
    monkeypatch.setattr(schedule.Tasks, "shared", lambda *_: None)
    monkeypatch.setattr(schedule, "_tell", lambda *_: None)
    group = schedule.Group(None, None, {}, SimpleNamespace(), "cpu", cells)
    idle_after = []
    schedule.make_cells(
        [group, group], str(home / "schedule"), 1, lambda: idle_after.append(len(started))
    )
    assert started == [["bce", "dpo"], ["knn"], ["bce"], ["dpo"], ["knn"]]
    assert idle_after == [5]  # other tasks wait until the last one has started
