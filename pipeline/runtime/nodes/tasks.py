"""Short work by plain Ray tasks: Ray Data starts helpers of its own first, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayTaskError

from pipeline.runtime.nodes.cluster import cores_now

AHEAD = 2  # tasks a core that are begun before the first result is taken


def by_tasks(work: Callable[..., Any], items: Iterable[Any], **given: Any) -> Iterator[Any]:
    """What the work makes of each item, one task on one core each, in the order of their ends.

    What a task raises is raised here, as itself.

    Parameters
    ----------
    given : other arguments, the same for all.
    """
    task = ray.remote(num_cpus=1)(work)
    shared = {name: ray.put(value) for name, value in given.items()}
    left, running, most = iter(items), [], AHEAD * cores_now()
    try:
        while True:
            new = islice(left, most - len(running))
            running += [task.remote(item, **shared) for item in new]
            if not running:
                return
            (ended, *_), running = ray.wait(running)
            yield ray.get(ended)
    except RayTaskError as error:
        raise error.cause from error  # whose text has the worker's traceback
    finally:
        for other in running:
            ray.cancel(other)
