"""Work that a few threads share while the thread that wants it waits for more to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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


@contextmanager
def one_core_a_thread() -> Iterator[None]:
    """Products by torch and BLAS keep to one core, as in Ray's workers; then all is as it was.

    Threads that start meanwhile do so by `torch_on_one_core`. MiniMol's graphs depend on what
    LAPACK does (`encoders.minimol.encodings`), so the driver shall do as workers do.
    """
    import torch  # only here: RDKit's encoders do without it
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    try:
        with threadpool_limits(1, user_api="blas"):
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)
