"""Threads that share work: side by side, results in order, and nothing begun after an error."""

from __future__ import annotations

from threading import Barrier, Event

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.runtime.threads import in_threads, one_core_a_thread, torch_on_one_core
from tests.commands import LIMIT_SECONDS


def numbers(count: int, ended: list[bool]):
    try:
        yield from range(count)
    finally:
        ended.append(True)


def test_results_come_in_order_however_long_each_takes():
    second, ended = Event(), []

    def work(number: int) -> int:
        if number == 0:
            assert second.wait(LIMIT_SECONDS)  # ends after the one behind it
        if number == 1:
            second.set()
        return 10 * number

    found = list(in_threads(work, numbers(20, ended), 2))
    assert found == [10 * number for number in range(20)] and ended


def test_they_work_at_the_same_time():
    together = Barrier(3)

    def work(number: int) -> int:
        return together.wait(LIMIT_SECONDS)

    assert sorted(in_threads(work, numbers(3, []), 3)) == [0, 1, 2]


@pytest.mark.parametrize("fails", [0, 1])
def test_an_error_of_any_thread_is_raised_and_what_has_not_begun_is_left(fails):
    begun, ended, failing = [], [], Event()

    def work(number: int) -> None:
        begun.append(number)
        if number == fails:
            failing.set()
            raise ValueError("this one")
        assert failing.wait(LIMIT_SECONDS)

    def items():
        try:
            yield 0
            yield 1
            assert failing.wait(LIMIT_SECONDS)
            yield from range(2, 1000)
        finally:
            ended.append(True)

    with pytest.raises(ValueError, match="this one"):
        list(in_threads(work, items(), 2))
    assert ended and len(begun) < 100


def test_a_caller_that_stops_leaves_what_has_not_begun():
    begun, ended = [], []
    results = in_threads(begun.append, numbers(1000, ended), 2)
    next(results)
    results.close()
    assert ended and len(begun) < 100


def test_torch_keeps_to_one_core_in_each_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = in_threads(
            lambda _: torch.get_num_threads(), numbers(4, []), 2, start=torch_on_one_core
        )
        assert list(found) == [1] * 4
    finally:
        torch.set_num_threads(threads)


def test_torch_and_blas_keep_to_one_core_for_a_while_also_after_an_error():
    def blas() -> set[int]:
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2, user_api="blas"):
            with pytest.raises(ValueError, match="inside"), one_core_a_thread():
                assert (torch.get_num_threads(), blas()) == (1, {1})
                raise ValueError("inside")
            assert (torch.get_num_threads(), blas()) == (2, {2})
    finally:
        torch.set_num_threads(threads)
