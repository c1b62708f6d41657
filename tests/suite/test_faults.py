"""What goes wrong in a suite is told, the others count, and nothing stale is taken for new."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipeline.runtime.errors import DamagedFile, InputError
from pipeline.suite import opened
from pipeline.suite.cells import Cell, finished_cells, read_energies
from pipeline.suite.grid import encoders_asked, samplings_asked, trainings_of
from pipeline.suite.run import _opened, run_suite
from pipeline.suite.running import group, schedule
from pipeline.suite.settings import SuiteSettings
from tests.suite.grids import cells_in, of, settings

pytestmark = pytest.mark.usefixtures("tasks_here")


def ratios(home: Path, **changes: Any) -> SuiteSettings:
    """Two ratios, of which the second is too large for data set a (16 OOD to 40 ID molecules)."""
    data = [str(home / "a.json"), {"name": "b", "file": str(home / "b.json"), "train_size": 20}]
    usual = {
        "data": data, "encoders": ["descriptors", "ecfp"], "detectors": ["tanimoto", "oe_knn"],
        "seeds": [1], "sweep": {"ood_ratio": [0.2, 0.8]}, "cross": False,
        "output_dir": str(home / "ratios"),
    }  # fmt: skip
    return settings(home, **{**usual, **changes})


@pytest.fixture(scope="module")
def calls() -> list[tuple[str, bool, set[str]]]:
    """Of each encoding its encoder, whether all is made anew, and the molecules."""
    return []


@pytest.fixture(scope="module")
def made(home, calls) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and rows of a suite whose second encoder fails; all features are asked for anew."""
    encode = opened.encode_views

    def encode_but_ecfp(molecules: pa.Table, source: Any, plans: Any) -> Any:
        [(name, plan)] = plans.items()
        calls.append((name, plan.settings.force_recompute_cache, set(molecules["key"].to_pylist())))
        if name == "ecfp":
            raise RuntimeError("no room for ecfp")
        return encode(molecules, source, plans)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "encode_views", encode_but_ecfp)
        summary = run_suite(ratios(home, force_recompute_cache=True))
    return summary, cells_in(home / "ratios")


def test_a_ratio_that_is_not_reached_fails_and_others_have_their_molecules(made, home):
    _, rows = made
    rows = of(rows, encoder="descriptors")
    [failed] = of(rows, status="failed")
    assert (failed["data"], failed["ood_ratio"]) == ("a", 0.8)
    assert failed["reason"] == (
        "--sweep ood_ratio 0.8 asks for 32 OOD training molecules of a, and there are 16 to 40 ID "
        "ones: 0.4 is the largest there"
    )
    names = ("data", "ood_ratio", "id_train_molecules", "ood_train_molecules")
    done = [[row[name] for name in names] for row in of(rows, status="done", detector="oe_knn")]
    counts = {(data, ratio): (inside, outside) for data, ratio, inside, outside in done}
    assert counts == {("a", 0.2): (40, 8), ("b", 0.2): (20, 4), ("b", 0.8): (20, 16)}
    few, many = (
        read_energies(str(home / "ratios"), row["cell"]).energies
        for row in of(rows, data="b", detector="oe_knn")
    )
    assert abs(few - many).max() > 1e-3


def test_a_ratio_that_no_data_set_reaches_is_told_before_anything_is_made(home, monkeypatch):
    monkeypatch.setattr(opened, "encode_views", None)
    asked = ratios(home, sweep={"ood_ratio": [0.2, 0.9]})
    with pytest.raises(InputError, match="0.9 asks for 36 .* 0.4 is the largest there .and the"):
        run_suite(asked)


def test_an_encoder_that_fails_ends_its_own_cells_alone(made):
    summary, rows = made
    failed = of(rows, encoder="ecfp")
    assert len(failed) == 6 and {row["status"] for row in failed} == {"failed"}
    reasons = [row["reason"] for row in failed if (row["data"], row["ood_ratio"]) != ("a", 0.8)]
    assert set(reasons) == {"RuntimeError: no room for ecfp"}
    assert summary["cells"] == {"done": 5, "failed": 7, "fitted_once_for_all_seeds": 12}


def test_all_samples_are_encoded_at_once_and_anew_only_then(made, calls):
    """So a retry is one, and `rejected` has what any sample lacks."""
    for mine in (calls[:4], calls[4:]):  # of a data set all, then samples; then the other encoder
        of_all, *samples, other = mine
        assert of_all[:2] == ("descriptors", True) and other[:2] == ("ecfp", True)
        assert samples and all(each[:2] == ("descriptors", False) for each in samples)
        assert of_all[2] == set.union(*(each[2] for each in samples)) == other[2]


def test_what_needs_no_training_is_a_range_where_it_depends_on_the_variant(made, home):
    summary, _ = made
    areas = {g["tanimoto_auroc"] for g in summary["groups"] if g["data"] == "b"}
    shown = (home / "ratios/tables/auroc.md").read_text()
    names = {g["best_descriptor"] for g in summary["groups"] if g["data"] == "b"}
    best = {f"{g['best_descriptor_auroc']:.3f}" for g in summary["groups"] if g["data"] == "b"}
    assert len(areas) == 1  # the nearest ID molecules are the same
    assert len(best) > 1 and f"{min(best)} to {max(best)} (" in shown
    assert all(name in shown for name in names)
    assert "A range: variants of a data set are trained on different molecules." in shown


def test_cells_that_failed_are_made_later_and_an_audit_that_fails_is_told(made, home, monkeypatch):
    for path in (home / "ratios/audits").iterdir():
        path.unlink()

    def broken(*_: Any) -> None:
        raise ValueError("no such descriptor")

    monkeypatch.setattr(schedule, "make_audits", broken)
    summary = run_suite(ratios(home, encoders=["descriptors"]))
    assert summary["cells"]["done"] == 5
    assert {each["reason"] for each in summary["failed_audits"]} == {
        "ValueError: no such descriptor"
    }
    shown = (home / "ratios/tables/auroc.md").read_text()
    assert "No best descriptor and no Tanimoto of b: ValueError: no such descriptor." in shown
    assert {row["best_descriptor"] for row in cells_in(home / "ratios")} == {None}


def test_cells_that_are_made_anew_do_not_count_before_they_are(made, home, monkeypatch):
    def killed(*_: Any) -> None:
        raise MemoryError("killed")

    monkeypatch.setattr(schedule, "run_part", killed)
    asked = ratios(home, encoders=["descriptors"], force_recompute_cache=True)
    with pytest.raises(InputError, match="no cell finished; the first failed so: MemoryError"):
        run_suite(asked)


def cell_of(asked: SuiteSettings) -> Cell:
    """The cell of a training on data set a."""
    suite, detectors = _opened(asked)
    suite.draw(samplings_asked(asked, detectors))
    [encoder] = encoders_asked(asked)
    [training] = trainings_of("a", encoder, "oe_knn", [{}], suite.data["a"].settings, [1])
    [cell] = suite.cells_of(training)
    return cell


def test_a_cell_is_another_where_other_molecules_have_features(home, monkeypatch):
    """As after --retry_rejected, or with a larger --conformer_seconds."""
    asked = ratios(home, encoders=["descriptors"], sweep={}, output_dir=str(home / "other"))
    encode = opened.encode_views

    def without(role: str, *given: Any) -> Any:
        found = encode(*given)
        if "role" not in found.molecules.column_names:
            return found
        row = found.molecules["role"].to_pylist().index(role)
        rows = [i for i in range(found.molecules.num_rows) if i != row]
        return replace(found, molecules=found.molecules.take(rows))

    def as_drawing(*given: Any) -> Any:
        found = encode(*given)
        flat = pa.array(["2d"] * found.molecules.num_rows)
        place = found.molecules.column_names.index("structure")
        return replace(found, molecules=found.molecules.set_column(place, "structure", flat))

    keys = [cell_of(asked).key, cell_of(asked).key]
    changes = [partial(without, role) for role in ("id_train", "ood_val", "ood_test")]
    for changed in (*changes, as_drawing):
        monkeypatch.setattr(opened, "encode_views", changed)
        keys.append(cell_of(asked).key)
    assert keys[0] == keys[1] and len(set(keys)) == 5


def test_a_damaged_store_starts_the_suite_over_instead_of_failing_cells(home, monkeypatch):
    asked = ratios(home, encoders=["descriptors"], sweep={}, output_dir=str(home / "other"))
    cell, damage = cell_of(asked), DamagedFile("features are damaged")

    def damaged(*_: Any, **__: Any) -> None:
        raise damage

    with monkeypatch.context() as patch:
        patch.setattr(opened, "encode_views", damaged)
        with pytest.raises(DamagedFile):
            cell_of(asked)
    with pytest.raises(DamagedFile, match="features are damaged"):
        schedule._outcome(ray.remote(damaged).remote(), [[cell]], asked.output_dir)
    settings_of_head = replace(cell.training.settings, detector="dpo", loss="dpo")
    monkeypatch.setattr(group, "train_heads", damaged)
    shared = SimpleNamespace(molecules=None, encoded=None, space=None, device="cpu")
    with pytest.raises(DamagedFile):
        list(group.fitted(shared, [settings_of_head], asked.output_dir, 1.0))
    monkeypatch.setattr(group, "fitted", lambda *_: iter([(0, damage)]))
    with pytest.raises(DamagedFile):
        group.run_part(None, [[cell]], asked.output_dir, 1.0)


def test_what_a_sweep_must_not_change_is_told_before_anything_is_made(home, monkeypatch):
    monkeypatch.setattr(opened, "encode_views", None)
    with pytest.raises(InputError, match="train_size: changes the test molecules of a too"):
        run_suite(ratios(home, sweep={"train_size": [20, 40]}, debug_dataset_size=10, test_size=8))


def test_data_sets_with_different_fragments_are_not_tested_on_each_other(home):
    data = [str(home / "a.json"), {"file": str(home / "b.json"), "fragments": "largest"}]
    with pytest.raises(InputError, match=r"--cross: fragments differ \(a: keep, b: largest\)"):
        run_suite(ratios(home, data=data, cross=True))


def test_cells_count_as_soon_as_they_are_written(home, monkeypatch):
    """Not when their task ends: this one ends when its first cell has been counted."""
    monkeypatch.undo()  # it needs a worker
    asked = ratios(home, encoders=["descriptors"], sweep={}, output_dir=str(home / "counted"))
    first = cell_of(asked)
    second, go = replace(first, key="second"), home / "counted/go"

    def part_that_waits(_: Any, part: Any, output_dir: str, __: float) -> dict[str, str]:
        folder, limit = Path(output_dir, "cells"), time.monotonic() + 30
        folder.mkdir()
        (folder / f"{first.key}.json").write_text(json.dumps({}))
        while not go.exists():
            if time.monotonic() > limit:
                return {second.key: "was never counted"}
            time.sleep(0.02)
        (folder / f"{second.key}.json").write_text(json.dumps({}))
        return {}

    class Counted(schedule.Progress):
        def advance(self, count: int, work: float = 0.0) -> None:
            super().advance(count, work)
            go.touch()

    monkeypatch.setattr(schedule, "run_part", part_that_waits)
    monkeypatch.setattr(schedule, "shared_of", lambda *_: None)
    monkeypatch.setattr(schedule, "Progress", Counted)
    monkeypatch.setattr(schedule, "PROGRESS_SECONDS", 0.05)
    todo = schedule.Group(None, None, {}, first.training.settings, "cpu", [[first, second]])
    assert schedule.make_cells([todo], asked.output_dir, 1) == {}
    assert finished_cells(asked.output_dir) == {first.key, "second"}
