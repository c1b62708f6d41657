"""A short library is scored in the driver, to the same scores; others by actors."""

from __future__ import annotations

import pytest

from pipeline.scoring import graph, run
from pipeline.scoring.run import run_scoring
from tests.scoring.made_library import settings
from tests.scoring.test_run import assert_same_scores


@pytest.fixture
def no_actors(monkeypatch):
    """Actors would end the run."""

    def started(*_):
        raise InterruptedError

    monkeypatch.setattr(run, "scoring_graph", started)


def test_the_driver_scores_what_actors_score(no_actors, home, whole):
    made = run_scoring(settings(home, "driver", encoder_workers=None))
    assert made["stages"]["encoders"] == 0 < whole["stages"]["encoders"]
    assert (made["rows_in"], made["rejected"]) == (60, whole["rejected"])
    assert_same_scores(home, "driver")


def test_actors_score_others(no_actors, home, whole, monkeypatch):
    with pytest.raises(InterruptedError):  # --encoder_workers 1
        run_scoring(settings(home, "asked"))
    for most, short in ((59, False), (60, True)):
        monkeypatch.setattr(graph, "most_here", lambda *_, most=most: most)
        chosen = settings(home, f"up to {most}", encoder_workers=None)
        if short:
            assert run_scoring(chosen)["scored"] == whole["scored"]
            continue
        with pytest.raises(InterruptedError):
            run_scoring(chosen)
