"""jobs.screen: from a training set and a library to the verdict, once and again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.molecules.identity import canonicalize
from pipeline.runtime.errors import InputError
from pipeline.scoring import screen
from pipeline.scoring.screen import ScreenSettings, check_screen, run_screen
from pipeline.scoring.verdict_text import verdict_lines
from tests.made_sets import INSIDE, VIEWS, hiv, moses, values_of, write_set, write_table
from tests.scoring_here import scored, scoring_here

LIBRARY = [*moses()[110:160], "nonsense", *hiv()[:40]]


@pytest.fixture(scope="module")
def home(ray_session, tmp_path_factory) -> Path:
    home = write_set(tmp_path_factory.mktemp("screen"))
    write_table(home / "library.csv", smiles=LIBRARY)
    return home


def settings(home: Path, **changes) -> ScreenSettings:
    usual = {
        "id_file": str(home / "training.csv"), "library": str(home / "library.csv"),
        "ood_file": str(home / "ood.csv"), "label_column": "y", "views": VIEWS,
        "detector": "knn", "knn_k": 3, "cache_root": str(home / "store"), "device": "cpu",
        "chunk_size": 40, "top": 2, "alpha": 0.1, "output_dir": str(home / "out"),
    }  # fmt: skip
    return ScreenSettings(**{**usual, **changes})


@pytest.fixture(scope="module")
def made(home) -> dict:
    with scoring_here():
        return run_screen(settings(home))


@pytest.fixture
def trainings(home, made, monkeypatch) -> list:
    """The trainings of the runs that follow; they are not done, but taken from the first."""
    done = []

    def train(own):
        done.append(own)
        return made["training"]

    monkeypatch.setattr(screen, "train_and_audit", train)
    return done


def test_the_verdict_counts_what_the_scores_say(home, made):
    rows, verdict = scored(home / "out"), made["verdict"]
    assert [row["smiles"] for row in rows] == [canonicalize(s) for s in LIBRARY if s != "nonsense"]
    new = [row for row in rows if not row["in_training"]]
    sides = {
        "inside": [r for r in new if not r["is_ood"]],
        "outside": [r for r in new if r["is_ood"]],
    }
    assert verdict["molecules"] == len(rows) == 90
    assert verdict["in_training"] == 10
    similar = [row["nearest_similarity"] for row in new]
    assert verdict["alike"] == sum(value >= 0.4 for value in similar)
    errors = [row["expected_error"] for row in new]
    for kind, some in sides.items():
        assert verdict[kind] == len(some) > 0
        assert verdict["median_similarity"][kind] == pytest.approx(
            np.median([row["nearest_similarity"] for row in some])
        )
        assert verdict["expected_error"][kind] == pytest.approx(
            np.median([row["expected_error"] for row in some])
        )
    assert verdict["expected_error"]["best_fifth_up_to"] == pytest.approx(np.quantile(errors, 0.2))
    assert verdict["expected_error"]["worst_fifth_from"] == pytest.approx(np.quantile(errors, 0.8))
    assert verdict["expected_error"]["without"] == 0
    assert json.loads((home / "out/verdict.json").read_text()) == verdict
    assert made["scores"]["rejected"] == 1 and made["scores"]["rows_in"] == 91
    told = "\n".join(verdict_lines(verdict))
    assert "90 molecules, of which 10" in told
    assert f"{verdict['inside']:,} (" in told and f"{verdict['outside']:,} (" in told


def test_the_same_command_again_trains_and_scores_nothing(home, made, trainings):
    with scoring_here():
        again = run_screen(settings(home))
    assert trainings == [] and again["scores"]["rows_of_this_run"] == 0
    assert again["verdict"] == made["verdict"]


def test_other_levels_rewrite_verdicts_and_train_nothing(home, made, trainings):
    with scoring_here():
        again = run_screen(settings(home, alpha=0.4, interval_alpha=0.3))
        assert trainings == [] and again["scores"]["rows_of_this_run"] == 0
        assert again["verdict"]["outside"] > made["verdict"]["outside"]
        assert run_screen(settings(home))["verdict"] == made["verdict"]


@pytest.mark.parametrize(
    "change",
    [
        {"knn_k": 4}, {"label_column": None}, {"property_model": "gp"}, {"seed": 1},
        {"data_seed": 1}, {"views": "ecfp"}, {"ood_file": None, "ood": "background"},
        {"ood_file": None, "ood": "synthetic"},
    ],
)  # fmt: skip
def test_another_flag_of_training_trains_again(home, made, trainings, change):
    other = settings(home, **change)
    screen._trained(other)
    assert len(trainings) == 1
    [own] = trainings
    assert own.output_dir == f"{other.output_dir}/training"
    screen._trained(settings(home))  # what lies there now is the other one
    assert len(trainings) == 2
    screen._trained(settings(home))
    assert len(trainings) == 2


def test_synthetic_ood_is_trained_without_distances_unless_they_are_asked_for(home, trainings):
    given = {"ood_file": None, "ood": "synthetic"}
    for views, expected in ((None, "minimol,ecfp,descriptors"), (VIEWS, VIEWS)):
        screen._trained(settings(home, views=views, **given))
        assert trainings[-1].views == expected
    screen._trained(settings(home, views=None))
    assert trainings[-1].views == "minimol,ecfp,descriptors,distances"


@pytest.mark.parametrize("name", ["training.csv", "ood.csv", "own.csv"])
def test_a_changed_file_trains_again(home, made, trainings, name):
    inside = moses()[:INSIDE]
    write_table(home / "own.csv", smiles=inside, prediction=values_of(inside))
    how = settings(home, predictions=str(home / "own.csv") if name == "own.csv" else None)
    screen._trained(how)
    before = len(trainings)
    screen._trained(how)
    assert len(trainings) == before
    text = (home / name).read_text()
    (home / name).write_text(text + "\n")
    screen._trained(how)
    (home / name).write_text(text)
    assert len(trainings) == before + 1
    screen._trained(settings(home))


def test_a_training_that_was_stopped_is_not_taken_for_the_one_before(home, made, monkeypatch):
    """Half of its checkpoint may lie where that one's was."""

    def stopped(own):
        raise KeyboardInterrupt

    trained = []
    with monkeypatch.context() as patch:
        patch.setattr(screen, "train_and_audit", stopped)
        with pytest.raises(KeyboardInterrupt):
            screen._trained(settings(home, knn_k=5))
    monkeypatch.setattr(screen, "train_and_audit", lambda own: trained.append(own) or {"audit": {}})
    screen._trained(settings(home))
    assert len(trained) == 1
    (home / "out/training/_done.json").unlink()


def test_a_library_that_has_changed_does_not_train_again_but_is_told(home, made, trainings):
    text = (home / "library.csv").read_text()
    screen._trained(settings(home))
    before = len(trainings)
    (home / "library.csv").write_text(text + "CCO\n")
    with scoring_here(), pytest.raises(InputError, match="scores of another data_file"):
        run_screen(settings(home))
    (home / "library.csv").write_text(text)
    assert len(trainings) == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id_file": None}, "required: --id_file"),
        ({"library": None}, "required: --library"),
        ({"id_file": None, "library": None}, "required: --id_file, --library"),
        ({"data_file": "split.json"}, "--data_file does nothing here"),
        ({"foundation_model": "ecfp"}, "--foundation_model and --views say the same"),
        ({"library": "absent.csv"}, "absent.csv: no such file"),
    ],
)
def test_wrong_flags_are_told_before_the_training(home, change, told):
    with pytest.raises(InputError, match=told):
        check_screen(settings(home, **change))
