"""Plain tasks: each item once, few ahead, and errors as they are."""

from __future__ import annotations

import pytest

from pipeline.runtime.errors import InputError
from pipeline.runtime.nodes.cluster import cores_now
from pipeline.runtime.nodes.tasks import AHEAD, by_tasks


def double(item: int, by: int) -> int:
    if item == 13:
        raise InputError("13 is refused")
    return item * by


def test_each_item_is_done_once_and_no_more_are_begun_than_cores_have_room_for(ray_session):
    taken = []
    results = by_tasks(double, (taken.append(i) or i for i in range(12)), by=2)
    found = [next(results)]
    assert len(taken) <= AHEAD * cores_now()
    found += results
    assert sorted(found) == [2 * i for i in range(12)] and len(taken) == 12
    assert list(by_tasks(double, [], by=2)) == []


def test_an_error_of_a_task_is_raised_as_itself(ray_session):
    with pytest.raises(InputError, match="^13 is refused$"):
        list(by_tasks(double, [1, 13, 2], by=2))
