"""Frozen runs that are made at once: what is finished when one of them has to start over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.comparison import schedule
from pipeline.runtime.errors import DamagedFile, InputError
from pipeline.training.settings import TrainSettings


@pytest.fixture
def job(tmp_path) -> schedule.Job:
    runs = [TrainSettings(data_file="none", output_dir=str(tmp_path / n)) for n in "abc"]
    return [(run, f"identity of {Path(run.output_dir).name}") for run in runs]


def names(runs: list[TrainSettings]) -> list[str]:
    return [Path(run.output_dir).name for run in runs]


def test_a_new_start_makes_those_alone_that_were_not_evaluated(job, monkeypatch):
    asked = []

    def together(runs, share, finished):
        asked.append(names(runs))
        if len(runs) == 3:
            finished(runs[0])
            raise DamagedFile("a shard")
        finished(runs[1])
        return [InputError("diverged"), {"auroc": 0.5}]

    monkeypatch.setattr(schedule, "train_and_evaluate_together", together)
    assert schedule._run(job) == [None, "diverged", None]
    assert asked == [["a", "b", "c"], ["b", "c"]]
    markers = [Path(run.output_dir, schedule.FINISHED) for run, _ in job]
    assert [marker.exists() for marker in markers] == [True, False, True]
    assert json.loads(markers[2].read_text()) == {"identity": "identity of c"}


def test_one_that_is_left_is_made_by_itself(job, monkeypatch):
    def together(runs, share, finished):
        for run in runs[:2]:
            finished(run)
        raise DamagedFile("a shard")

    alone = []
    monkeypatch.setattr(schedule, "train_and_evaluate_together", together)
    monkeypatch.setattr(schedule, "train_and_evaluate", lambda run, share: alone.append(run) or {})
    assert schedule._run(job) == [None, None, None]
    assert names(alone) == ["c"]


def test_what_they_share_fails_for_all(job, monkeypatch):
    def together(*_):
        raise InputError("no such file")

    monkeypatch.setattr(schedule, "train_and_evaluate_together", together)
    assert schedule._run(job) == ["no such file"] * 3
