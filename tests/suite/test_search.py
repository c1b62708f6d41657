"""A search by Ray Tune: what it takes, what of it fails, and what is not made twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.errors import InputError
from pipeline.suite.run import run_suite
from pipeline.suite.running import search
from pipeline.suite.running.schedule import Tasks
from pipeline.suite.running.search import Search
from pipeline.training.settings import TrainSettings
from tests.suite.grids import cells_in, settings

BAD = "bad"  # a file in the output folder: every second trial fails while it is there


class FailingTasks(Tasks):
    """Tasks of trials, each told in the file `trials`."""

    def other(self, work: Any, tried: TrainSettings) -> Any:
        folder = Path(tried.output_dir)

        def trial(*given: Any) -> dict[str, Any]:
            with open(folder / "trials", "a") as file:
                file.write(f"{tried.knn_k}\n")
            made = (folder / "trials").read_text().split()
            if (folder / BAD).exists() and len(made) == 2:
                return {"val_auroc": float("nan"), "reason": "no room"}
            return work(*given)

        return super().other(trial, tried)


def test_a_search_takes_the_best_tries_failed_trials_again_and_is_not_made_twice(
    home, monkeypatch, caplog
):
    output = home / "searched"
    output.mkdir()
    (output / BAD).touch()
    asked = settings(
        home, data=[str(home / "a.json")], detectors=["tanimoto", "knn"], cross=False, search=2,
        sweep={"knn_k": {"least": 1, "most": 30}}, output_dir=str(output),
    )  # fmt: skip
    monkeypatch.setattr(search, "Tasks", FailingTasks)
    with caplog.at_level("INFO", logger="pipeline"):
        summary = run_suite(asked)
    [failed] = summary["failed_trials"]
    assert failed["reason"] == "no room" and failed["detector"] == "knn"
    assert "knn on descriptors of a: 1 of 2 trials failed, the first: no room" in caplog.text
    assert "search of knn on descriptors of a: 2/2 trials" in caplog.text
    assert not list((output / "searches").glob("*.json"))  # or the failure would stand for ever
    [first] = {row["knn_k"] for row in cells_in(output) if row["detector"] == "knn"}
    made = (output / "trials").read_text().split()
    assert made[0] == str(first) and made[1] == str(failed["settings"]["knn_k"])

    (output / BAD).unlink()
    assert run_suite(asked)["failed_trials"] == []
    assert (output / "trials").read_text().split() == [*made, made[1]]  # the failed one alone
    [path] = (output / "searches").glob("*.json")
    found = json.loads(path.read_text())
    best = max(found["trials"], key=lambda trial: trial["val_auroc"])
    assert len(found["trials"]) == 2 and found["best"] == best["settings"]
    assert all(1 <= trial["settings"]["knn_k"] <= 30 for trial in found["trials"])
    rows = cells_in(output)
    assert [row["variant"] for row in rows] == ["", "searched"]
    assert rows[1]["knn_k"] == best["settings"]["knn_k"]
    assert rows[1]["val_auroc"] == pytest.approx(best["val_auroc"])
    monkeypatch.setattr(Search, "_search", None)  # a third search would fail
    run_suite(asked)


def test_where_every_trial_fails_the_methods_cells_fail_with_the_reason(home, monkeypatch):
    """They are not trained with settings that nobody asked for."""
    asked = settings(
        home, data=[str(home / "a.json")], detectors=["tanimoto", "knn"], cross=False, search=2,
        sweep={"knn_k": [5, 10]}, output_dir=str(home / "all_fail"),
    )  # fmt: skip
    trials = [{"settings": {"knn_k": k}, "val_auroc": None, "reason": "no room"} for k in (5, 10)]
    found = {"data": "a", "encoder": "descriptors", "detector": "knn", "best": None,
             "val_auroc": None, "trials": trials}  # fmt: skip
    monkeypatch.setattr(Search, "_search", lambda *_: found)
    summary = run_suite(asked)
    done, failed = cells_in(home / "all_fail")
    assert (done["status"], failed["status"]) == ("done", "failed")
    assert failed["variant"] == "searched"
    assert failed["reason"] == "all 2 trials of the search failed: no room"
    assert [trial["settings"]["knn_k"] for trial in summary["failed_trials"]] == [5, 10]


@pytest.mark.parametrize(
    ("name", "least", "most", "kind"),
    [("batch_size", 16, 64, int), ("epochs", 5, 9, int), ("lr", 1, 10, float)],
)
def test_bounds_are_drawn_as_the_setting_is_typed(name, least, most, kind):
    from ray import tune

    drawn = search._space(tune, name, {"least": least, "most": most}).sample(size=50)
    assert all(float(value).is_integer() == (kind is int) for value in drawn)
    assert all(least <= value <= most for value in drawn)


def test_a_reference_of_a_search_is_looked_for_before_it_begins(home, monkeypatch):
    monkeypatch.setattr(Search, "_search", None)
    asked = settings(home, detectors=["knn", "dpo"], search=2, sweep={"knn_k": [5, 10]},
                     output_dir=str(home / "no_reference"))  # fmt: skip
    for reference in ("lof", "knn (knn_k=5)", "ecfp/knn"):
        with pytest.raises(InputError, match="is no method of this suite"):
            run_suite(type(asked)(**{**vars(asked), "reference": reference}))
