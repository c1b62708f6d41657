"""Scoring in the test's own process, which saves the seconds that Ray's actors take to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from pipeline.molecules.parsers import parser_of
from pipeline.runtime.files import absolute
from pipeline.scoring import run
from pipeline.scoring.settings import ScoreSettings
from pipeline.scoring.steps import Embed, ScoreChunk, Step, look_up, read_chunks
from pipeline.store.keyed_table import new_run_stamp


class Here:
    """The flow of `pipeline.scoring.graph`, chunk after chunk."""

    def __init__(self, plans, pool, judge, settings, files, done):
        now = {
            view: replace(plan, tables=plan.tables.snapshot(settings.keep_encodings))
            for view, plan in plans.items()
        }
        self.step = Step(ray.put(now), new_run_stamp())
        self.worker = ScoreChunk(
            self.step, pool, ray.put(judge.ready()), absolute(settings.output_dir)
        )
        self.settings, self.done = settings, done
        self.files = pa.Table.from_pylist(
            [{"number": number, **file._asdict()} for number, file in enumerate(files)]
        )

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        settings, parser = self.settings, parser_of(self.settings)
        for chunk in read_chunks(self.files, settings, settings.chunk_size, self.done):
            yield self.worker(Embed(self.step)(look_up(chunk, self.step, parser)))


@contextmanager
def scoring_here():
    """Scoring works in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "scoring_graph", Here)
        yield


def score_settings(home: Path, checkpoint: Path, name: str, **changes: Any) -> ScoreSettings:
    """How `library.csv` in a folder is scored."""
    usual = {
        "data_file": str(home / "library.csv"), "cache_root": str(home / "store"), "device": "cpu",
        "alpha": 0.1, "chunk_size": 40, "top": 0,
    }  # fmt: skip
    return ScoreSettings(
        checkpoint=str(checkpoint), output_dir=str(home / name), **{**usual, **changes}
    )


def scored(folder: Path, kind: str = "scores") -> list[dict[str, Any]]:
    """Rows that scoring wrote, in the library's order."""
    files = sorted((folder / kind).glob("part-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]
