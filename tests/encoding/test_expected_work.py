"""The longest work first: tasks cover each molecule once, and cores end together."""

from __future__ import annotations

import heapq
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.encoding import graph
from pipeline.encoding.cost.expected_work import ExpectedWork, expected_seconds
from pipeline.encoding.graph import (
    HARD_SECONDS,
    TASK_ROWS,
    TASK_SECONDS,
    in_slices,
    longest_first,
)
from pipeline.runtime.telemetry import Progress

WITH_CONFORMERS = SimpleNamespace(conformers=object(), takes="smiles")
WITHOUT = SimpleNamespace(conformers=None, takes="smiles")


def molecules(smiles: list[str]) -> pa.Table:
    return pa.table({"key": [f"{i:032x}" for i in range(len(smiles))], "smiles": smiles})


def seconds_until_the_end(tasks: list[pa.Table], seconds: dict[str, float], cores: int) -> float:
    """When the last core ends, if each takes the next task as soon as it is free."""
    free = [0.0] * cores
    for task in tasks:
        heapq.heappush(free, heapq.heappop(free) + sum(map(seconds.get, task["key"].to_pylist())))
    return max(free)


@pytest.fixture(params=[2, 8])
def cores(request, monkeypatch) -> int:
    monkeypatch.setattr(graph, "cluster_cores", lambda: request.param)
    return request.param


@pytest.fixture
def library(hiv_smiles) -> pa.Table:
    """2,000 molecules, the last five of which are expected to take about ten seconds each."""
    drawn = np.random.default_rng(0).choice([s for s in hiv_smiles if len(s) < 120], 1995)
    return molecules([*drawn, *["C" * 225] * 5])


def test_every_molecule_is_in_one_task_and_tasks_get_smaller(library, cores):
    tasks = longest_first(library, WITH_CONFORMERS)
    keys = [key for task in tasks for key in task["key"].to_pylist()]
    assert sorted(keys) == library["key"].to_pylist()
    assert all(0 < task.num_rows <= TASK_ROWS for task in tasks)
    assert [task.num_rows for task in tasks[:5]] == [1] * 5  # those of ten seconds
    work = [expected_seconds(task, WITH_CONFORMERS).sum() for task in tasks]
    assert work[4] > HARD_SECONDS > work[-1]
    assert all(later < 1.3 * earlier for earlier, later in zip(work[5:], work[6:]))


@pytest.mark.parametrize("wrong_by", [0.0, 0.4])
def test_cores_end_together_though_five_molecules_take_ten_seconds_each(library, cores, wrong_by):
    """Also where log seconds are as wrong as they were in the fit, a standard deviation of 0.4."""
    random = np.random.default_rng(1)
    expected = expected_seconds(library, WITH_CONFORMERS)
    assert (expected[-5:] > 8).all()
    true = expected * np.exp(random.normal(0, wrong_by, len(expected)))
    seconds = dict(zip(library["key"].to_pylist(), true))
    bound = max(true.sum() / cores, true.max())
    ours = seconds_until_the_end(longest_first(library, WITH_CONFORMERS), seconds, cores)
    assert ours < 1.05 * bound
    as_read = [library.slice(start, 24) for start in range(0, library.num_rows, 24)]
    assert seconds_until_the_end(as_read, seconds, cores) > ours + 5


def test_tasks_of_a_large_library_are_not_longer_than_those_of_a_small_one(cores):
    """What a killed task has made is lost."""
    chains = np.random.default_rng(0).lognormal(3.2, 0.4, 20_000).astype(int)
    table = molecules(["C" * max(1, n) for n in chains])
    work = [expected_seconds(task, WITH_CONFORMERS).sum() for task in
            longest_first(table, WITH_CONFORMERS)]  # fmt: skip
    assert max(work) <= TASK_SECONDS[1] and np.median(work[: len(work) // 2]) > 10


@pytest.mark.parametrize("size, pulled", [(40, 0), (150, 150)])
def test_all_but_the_largest_stay_as_they_were(cores, size, pulled):
    """Also where all are large, as peptides: streams of the store's shards go by their order."""
    sizes = np.random.default_rng(0).integers(size // 2, 3 * size // 2, 3000)
    tasks = longest_first(molecules(["C" * n for n in sizes]), WITH_CONFORMERS)
    found = [len(smiles) for task in tasks for smiles in task["smiles"].to_pylist()]
    order = np.argsort(-sizes, kind="stable")[:pulled]
    assert found == [*sizes[order], *np.delete(sizes, order)]


def test_no_molecules_are_one_empty_task(cores):
    empty = molecules([]).cast(pa.schema([("key", pa.string()), ("smiles", pa.string())]))
    for tasks in (longest_first(empty, WITH_CONFORMERS), in_slices(empty)):
        assert [task.num_rows for task in tasks] == [0]
    assert sum(part.num_rows for part in in_slices(molecules(["C"] * 1000))) == 1000


def test_the_time_left_goes_by_the_work_that_is_left(monkeypatch):
    """Half of the molecules are done, and a tenth of the work."""
    todo = molecules(["C", "C" * 60])
    work = ExpectedWork.of(todo, todo, WITH_CONFORMERS)
    assert work.of_batch(todo) == pytest.approx(work.total)
    assert work.of_batch(todo.slice(0, 1)) < 0.1 * work.total
    progress = Progress("conformers", 2, work.total)
    monkeypatch.setattr(Progress, "seconds", property(lambda _: 9.0))
    progress.advance(1, 0.1 * work.total)
    assert progress.seconds_left == pytest.approx(81)
    assert "1/2 molecules (50.0 %), 0.1 molecules/s, 81 s left" in str(progress)


def test_a_molecule_whose_conformer_is_stored_is_expected_to_take_the_encoder_alone():
    todo = molecules(["C" * 30, "C" * 30])
    stored, unmade = ExpectedWork.of(todo, todo.slice(1), WITH_CONFORMERS).seconds
    assert stored == pytest.approx(expected_seconds(todo, WITHOUT)[0]) and unmade > 2 * stored
