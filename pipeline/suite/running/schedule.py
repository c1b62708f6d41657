"""The tasks of a suite: groups' shared features, their parts and audits, over the cluster."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from pipeline.detectors.registry import ENERGY_HEADS
from pipeline.encoding.views import EncodedViews
from pipeline.molecules.kinds import Kind
from pipeline.runtime.errors import DamagedFile, reason_of
from pipeline.runtime.nodes.cluster import MAX_RESOURCES, cluster_cores, is_one_node
from pipeline.runtime.telemetry import PROGRESS_SECONDS, Progress
from pipeline.suite.cells import Cell, finished_cells
from pipeline.suite.running.audits import make_audits
from pipeline.suite.running.group import run_part, shared_of
from pipeline.suite.settings import SuiteSettings
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

Failures = dict[str, str]  # by key of a cell, why it has failed


@dataclass(frozen=True)
class Group:
    """Cells on one sample of a data set and one encoder's features, that are to be made.

    Attributes
    ----------
    molecules, encoded, others, settings, device : as `shared_of` takes them.
    cells : of each training its cells.
    """

    molecules: pa.Table
    encoded: EncodedViews
    others: Mapping[str, tuple[pa.Table, EncodedViews]]
    settings: TrainSettings
    device: str
    cells: Sequence[Sequence[Cell]]

    def parts(self, apart: bool = False) -> list[list[Sequence[Cell]]]:
        """The trainings of a task each: the heads, which take longest, then by detector.

        Parameters
        ----------
        apart : give the heads of each loss a task of their own.
        """
        parts: dict[tuple[bool, str], list[Sequence[Cell]]] = {}
        for cells in self.cells:
            training = cells[0].training
            together = training.is_head and not apart
            name = "" if together else training.detector
            parts.setdefault((not training.is_head, name), []).append(cells)
        return [parts[name] for name in sorted(parts)]


def at_a_time(settings: SuiteSettings) -> int:
    """Tasks at a time."""
    return settings.parallel_runs or cluster_cores()


def make_cells(
    groups: Sequence[Group],
    output_dir: str,
    parallel: int,
    nothing_waits: Callable[[], None] = lambda: None,
) -> Failures:
    """Make all cells of groups in tasks of the cluster; why those failed that did.

    Parameters
    ----------
    parallel : tasks at a time; each trains with its share of the cores.
    nothing_waits : called once the last task has started: from then on there are cores for others.

    Raises
    ------
    DamagedFile
        If a task met one; what is finished by then stays.
    """
    keys = {cell.key for group in groups for cells in group.cells for cell in cells}
    if not keys:
        return {}
    progress = Progress("suite", len(keys), unit="cells")
    failed: Failures = {}
    last = len(groups) - 1  # its heads would train on one core, while others have nothing to do
    waiting = deque(
        (place, part) for place, group in enumerate(groups) for part in group.parts(place == last)
    )
    running: dict[ray.ObjectRef, tuple[int, Any]] = {}
    shared: dict[int, ray.ObjectRef] = {}
    tasks = Tasks(parallel)
    with _ended_with_this(running):
        while waiting or running:
            while waiting and len(running) < parallel:
                place, part = waiting.popleft()
                for ahead in (place, place + 1):  # the next group's is made while this one trains
                    if ahead not in shared and ahead < len(groups):
                        shared[ahead] = tasks.shared(groups[ahead])
                running[tasks.part(shared[place], part, output_dir)] = place, part
                if not waiting:
                    nothing_waits()
            ready, _ = ray.wait(list(running), num_returns=1, timeout=PROGRESS_SECONDS)
            for ref in ready:
                _, part = running.pop(ref)
                found = _outcome(ref, part, output_dir)
                failed |= found
                _tell(part, found)
            told = len(keys & (finished_cells(output_dir) | failed.keys()))
            if told > progress.done:
                progress.advance(told - progress.done)
            left = {place for place, _ in (*waiting, *running.values())}
            for place in shared.keys() - left:  # its features need no room any more
                del shared[place]
    return failed


class Audits:
    """`make_audits` of samples, in tasks of the cluster; with this, Ctrl-C ends them too.

    Parameters
    ----------
    todo : of each sample what `make_audits` takes.
    """

    def __init__(self, todo: Sequence[tuple[pa.Table, Mapping[str, pa.Table], int, Kind]]):
        self.todo = todo
        self.refs: list[ray.ObjectRef] = []

    def __enter__(self) -> Audits:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None:
            _end(self.refs)

    def start(self) -> None:
        """Start those that have not begun."""
        remote = ray.remote(num_cpus=1, max_retries=0)(make_audits)
        self.refs += [remote.remote(*each) for each in self.todo[len(self.refs) :]]

    def results(self) -> tuple[dict[str, Any], Failures]:
        """What came of them, by file; and by file why those failed that did."""
        self.start()
        made: dict[str, Any] = {}
        failed: Failures = {}
        for ref, (_, tests, *_) in zip(self.refs, self.todo):
            try:
                made |= ray.get(ref)
            except ray.exceptions.RayError as error:  # the cells, which took long, still count
                failed |= dict.fromkeys(tests, reason_of(_cause(error)))
        return made, failed


@contextmanager
def _ended_with_this(refs: Iterable[ray.ObjectRef]) -> Iterator[None]:
    """Ctrl-C here ends tasks also on a cluster that goes on without this process."""
    try:
        yield
    except BaseException:
        _end(refs)
        raise


def _end(refs: Iterable[ray.ObjectRef]) -> None:
    for ref in refs:
        ray.cancel(ref)


class Tasks:
    """How tasks are started on this cluster.

    Parameters
    ----------
    parallel : tasks at a time; each trains with its share of the cores.
    """

    def __init__(self, parallel: int):
        most = os.environ.get(MAX_RESOURCES, "")  # the head alone has it; empty says nothing
        self.usual = {
            "max_retries": 0,
            "runtime_env": {"env_vars": {MAX_RESOURCES: most}},
            "scheduling_strategy": "SPREAD",  # over nodes, and not into what Ray Tune reserves
        }
        self.share, self.one_node = 1 / parallel, is_one_node()

    def other(self, work: Callable[..., Any], settings: TrainSettings) -> Any:
        """A task that trains by some settings."""
        # On several nodes heads train in Ray Train's workers, which reserve cores themselves.
        here = self.one_node or settings.detector not in ENERGY_HEADS
        return ray.remote(num_cpus=1 if here else 0, **self.usual)(work)

    def shared(self, group: Group) -> ray.ObjectRef:
        """What the trainings of a group share."""
        return ray.remote(num_cpus=1, **self.usual)(shared_of).remote(
            group.molecules, group.encoded, group.others, group.settings, group.device
        )

    def part(self, shared: ray.ObjectRef, part: Any, output_dir: str) -> ray.ObjectRef:
        """The cells that failed of some trainings of a group."""
        remote = self.other(run_part, part[0][0].training.settings)
        return remote.remote(shared, part, output_dir, self.share)


def _outcome(ready: ray.ObjectRef, part: Sequence[Sequence[Cell]], output_dir: str) -> Failures:
    try:
        return ray.get(ready)
    except ray.exceptions.RayError as error:  # its group cannot be made, or its process died
        cause = _cause(error)
        if isinstance(cause, DamagedFile):
            raise cause from None
        reason = reason_of(cause)
    there = finished_cells(output_dir)
    return {cell.key: reason for cells in part for cell in cells if cell.key not in there}


def _cause(error: ray.exceptions.RayError) -> BaseException:
    """What a task raised, or what became of its process."""
    return getattr(error, "cause", None) or error


def _tell(part: Sequence[Sequence[Cell]], failed: Failures) -> None:
    """Log what failed in a part, once for each reason."""
    labels = {cell.key: cell.labels for cells in part for cell in cells}
    counts: dict[tuple[str, ...], int] = {}
    for key, reason in failed.items():
        told = tuple(labels[key][name] for name in ("data", "encoder", "detector"))
        counts[*told, reason] = counts.get((*told, reason), 0) + 1
    for (data, encoder, detector, reason), count in counts.items():
        log.warning("%s on %s of %s: %s cells failed: %s", detector, encoder, data, count, reason)
