"""What the driver scores itself, to the same scores, and when it hands over to actors."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding.plan import plan_encoding
from pipeline.molecules.identity import molecule_key
from pipeline.scoring import graph, run
from pipeline.scoring.run import run_scoring
from tests.encoding.test_short_work import POOL
from tests.scoring.made_library import settings, table
from tests.scoring.test_run import assert_same_scores


@pytest.fixture
def actors(monkeypatch):
    """Chunks that are left out where actors begin; they end the run."""
    begun = []

    def started(*given):
        begun.append(given[-1])
        raise InterruptedError

    monkeypatch.setattr(run, "scoring_graph", started)
    return begun


def test_the_driver_scores_what_actors_score(actors, home, whole):
    made = run_scoring(settings(home, "driver", encoder_workers=None))
    assert made["stages"]["encoders"] == 0 < whole["stages"]["encoders"] and not actors
    assert (made["rows_in"], made["rejected"]) == (60, whole["rejected"])
    assert_same_scores(home, "driver")


def test_actors_are_asked_for_by_a_flag(actors, home, whole):
    with pytest.raises(InterruptedError):
        run_scoring(settings(home, "asked", encoder_workers=1))
    assert actors == [frozenset()]


def test_what_takes_longer_is_handed_over_and_each_row_is_scored_once(home, whole, monkeypatch):
    monkeypatch.setattr(graph, "ACTORS_START", 1e-9)
    monkeypatch.setattr(graph, "FEW_SECONDS", 1e9)
    monkeypatch.setattr(run, "FIRST_ROWS", 60)  # as if there were more
    left_out, by_actors = [], run.scoring_graph
    monkeypatch.setattr(
        run, "scoring_graph", lambda *given: left_out.append(given[-1]) or by_actors(*given)
    )
    made = run_scoring(settings(home, "handed", encoder_workers=None))
    assert [len(names) for names in left_out] == [1]  # the first chunk to end
    assert made["stages"]["encoders"] > 0
    assert (made["rows_in"], made["rows_of_this_run"]) == (60, 60)
    assert_same_scores(home, "handed")


def test_a_long_library_starts_here_if_the_store_has_it(home, whole, small_weights, monkeypatch):
    usual = {"device": "cpu", "precision": "fp32", "cache_root": str(home / "store")}
    plans = {"unimol": plan_encoding(EncoderSettings(weights=str(small_weights), **usual))}
    monkeypatch.setattr(graph, "core_seconds", lambda _: 0.1)

    def rows(texts):
        keys = [molecule_key(text) for text in texts]
        nothing = pa.nulls(len(texts), pa.string())
        return pa.table({"key": keys, "smiles": texts, "reason": nothing})

    stored = rows([row["smiles"] for row in table(home / "whole", "scores")])
    others = rows(["C" * length for length in range(1, 91)])
    assert graph.starts_here(stored, False, plans, POOL)
    assert not graph.starts_here(others, False, plans, POOL)
    assert graph.starts_here(others.slice(0, 80), True, plans, POOL)  # 8 s of a core
    assert not graph.starts_here(others, True, plans, POOL)
    assert graph.starts_here(None, True, plans, POOL)  # nothing to do
    assert not graph.starts_here(stored, False, plans, POOL._replace(device="cuda"))


def test_a_chunk_that_takes_long_is_left_to_actors(actors, home, whole, monkeypatch, tmp_path):
    """The first rows were stored, the next are not: no core works on them alone for minutes."""
    stored = (home / "library.smi").read_text().splitlines()[:7]
    new = [f"{'C' * length}O" for length in range(1, 15)]
    (tmp_path / "more.smi").write_text("\n".join([*stored, *new]) + "\n")
    monkeypatch.setattr(graph, "core_seconds", lambda _: 2.0)  # 14 s a chunk
    monkeypatch.setattr(run, "FIRST_ROWS", 7)
    first_rows = run.check_first_rows
    monkeypatch.setattr(run, "check_first_rows", lambda *given: first_rows(*given).slice(0, 7))
    chosen = settings(
        home, "long", data_file=str(tmp_path / "more.smi"), chunk_size=7, encoder_workers=None
    )
    with pytest.raises(InterruptedError):
        run_scoring(chosen)
    (left_out,) = actors
    assert left_out <= {"part-00000-0000000"}  # tasks end in any order
