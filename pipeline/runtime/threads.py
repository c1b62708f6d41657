"""Work that a few threads share while the thread that wants it waits for more to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def in_threads(
    work: Callable[[Any], Any],
    items: Generator[Any],
    threads: int,
    *,
    ahead: int = 2,
    start: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """What the work makes of each item, in the items' order.

    What is done is handed over, and an error raised, when the next item is there. After an error,
    or if the caller stops, what has not begun is left, the items end, and what runs is waited for.

    Parameters
    ----------
    ahead : items that wait for each thread, at most.
    start : called by each thread before it works.
    """
    workers, tasks = ThreadPoolExecutor(threads, initializer=start), deque[Future]()
    try:
        for item in items:
            tasks.append(workers.submit(work, item))
            for task in tasks:
                if task.done() and task.exception() is not None:
                    task.result()  # which raises it
            while tasks and (tasks[0].done() or len(tasks) > ahead * threads):
                yield tasks.popleft().result()
        while tasks:
            yield tasks.popleft().result()
    finally:
        workers.shutdown(wait=False, cancel_futures=True)
        items.close()
        workers.shutdown()


def torch_on_one_core() -> None:
    """For `start`: what torch multiplies in this thread takes one core of a CPU."""
    import torch

    torch.set_num_threads(1)
