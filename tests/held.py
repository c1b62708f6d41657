"""Commands that wait half way: `python -m tests.held JOB …` runs jobs.JOB with held workers.

A file named `hold` in the output folder holds a number. As soon as the run has got that far (shards
of features, chunks of scores, checkpoints of a training, cells of a suite), what works waits while
the file is there. So a test that must stop a run in the middle has all the time it needs, however
slow the machine is.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa

from jobs import cli
from pipeline.encoding import graph as encoding_graph
from pipeline.encoding import short_work
from pipeline.encoding.steps import EncodeBatch
from pipeline.runtime.files import write_atomically
from pipeline.scoring.steps import ScoreChunk
from tests.commands import LIMIT_SECONDS

HOLD = "hold"


def hold(output: Path, after: int) -> None:
    """Let a run that writes to a folder wait as soon as it has made so much."""
    write_atomically(str(output / HOLD), str(after).encode())


def release(output: Path) -> None:
    """Let it go on."""
    (output / HOLD).unlink()


def _wait(output: str, made: Callable[[], int]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS  # the test may have failed
    while time.monotonic() < deadline:
        try:
            after = int(Path(output, HOLD).read_text())
        except FileNotFoundError:
            return
        if made() < after:
            return
        time.sleep(0.05)


class HeldEncodeBatch(EncodeBatch):
    """Waits after a batch, when the store has enough shards of features."""

    def __init__(self, plan: Any, *others: Any, **more: Any):
        super().__init__(plan, *others, **more)
        self.output = plan.settings.output_dir

    def __call__(self, batch: pa.Table) -> pa.Table:
        """As that of EncodeBatch."""
        made = super().__call__(batch)
        _wait(self.output, lambda: len(self.tables.features.shards()))
        return made


class HeldScoreChunk(ScoreChunk):
    """Waits after a chunk, when there are enough of them."""

    def __call__(self, chunk: pa.Table) -> pa.Table:
        """As that of ScoreChunk."""
        counts = super().__call__(chunk)
        _wait(self.output, lambda: len(list(Path(self.output).glob("scores/part-*"))))
        return counts


def held_training_loop(config: dict[str, Any]) -> dict[str, Any]:
    """The training loop; waits after a checkpoint, when this run has reported enough of them."""
    from pipeline.training.worker import loop  # imports torch: other jobs' drivers do without

    report, reported = loop.report, 0

    def report_and_wait(*arguments: Any) -> None:
        nonlocal reported
        report(*arguments)
        reported += 1
        _wait(config["job"].settings.output_dir, lambda: reported)

    loop.report = report_and_wait
    try:
        return loop.training_loop(config)
    finally:
        loop.report = report


def held_run_part(shared: Any, part: Any, output_dir: str, share: float) -> dict[str, str]:
    """A part of a suite; waits after a cell, when there are enough of them."""
    from pipeline.suite.running import group

    write = group.write_cell

    def write_and_wait(folder: str, *cell: Any) -> None:
        write(folder, *cell)
        _wait(folder, lambda: len(list(Path(folder).glob("cells/*.json"))))

    group.write_cell = write_and_wait
    try:
        return group.run_part(shared, part, output_dir, share)
    finally:
        group.write_cell = write


def main(job: str, argv: list[str]) -> int:
    """Run a command with held workers."""
    encoding_graph.EncodeBatch = short_work.EncodeBatch = HeldEncodeBatch
    if job == "score":
        importlib.import_module("pipeline.scoring.graph").ScoreChunk = HeldScoreChunk
    if job == "train":
        importlib.import_module("pipeline.training.trainer").training_loop = held_training_loop
    if job == "suite":
        importlib.import_module("pipeline.suite.running.schedule").run_part = held_run_part
    work = getattr(importlib.import_module(f"jobs.{job}"), job)
    return cli.main(get_type_hints(work)["settings"], work, job, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
