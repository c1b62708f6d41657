"""The flow from a library's files to scores, as a list of steps, a chunk of rows at a time.

A chunk is done when its scores' file is there, so a run that is killed continues with the others.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from pipeline.conformers.conformer import NVMOLKIT
from pipeline.encoding.graph import ON_A_CORE, graphs_by_tasks
from pipeline.encoding.lookup import known, refused, unique, without
from pipeline.encoding.plan import EncoderPool, EncodingPlan
from pipeline.encoding.short_work import (
    ACTORS_START,
    core_seconds,
    may_work_here,
)
from pipeline.molecules.folders import DataFile
from pipeline.molecules.parsers import parser_of
from pipeline.runtime.files import absolute
from pipeline.runtime.nodes.tasks import by_tasks
from pipeline.runtime.threads import one_core_a_thread
from pipeline.scoring.chunks import of_view, table_of
from pipeline.scoring.settings import ScoreSettings
from pipeline.scoring.steps import (
    Embed,
    ScoreChunk,
    Step,
    look_up,
    read_chunks,
    ready_chunk,
    with_graphs,
)
from pipeline.scoring.verdicts import Judge
from pipeline.store.keyed_table import new_run_stamp

FEW_SECONDS = 0.5  # of encoding a library's first rows, if the store lacks few of them
ONE_CHUNK = {**ON_A_CORE, "batch_size": 1}


def with_store_as_it_is(
    plans: dict[str, EncodingPlan], settings: ScoreSettings
) -> dict[str, EncodingPlan]:
    """The plans, with the store's index read once for all steps and processes of this run."""
    return {
        view: replace(plan, tables=plan.tables.snapshot(settings.keep_encodings))
        for view, plan in plans.items()
    }


def scoring_graph(
    plans: dict[str, EncodingPlan],
    pool: EncoderPool,
    judge: Judge,
    settings: ScoreSettings,
    files: list[DataFile],
    done: frozenset[str],
) -> ray.data.Dataset:
    """The flow from data files to counts of what was written.

    Parameters
    ----------
    plans : of each view's encoder, see `with_store_as_it_is`.
    pool : of actors that each hold all encoders.
    done : chunks to leave out.
    """
    step = _step(plans)
    items = _numbered(files)
    chunks = (
        ray.data.from_items(items, override_num_blocks=len(items))
        .map_batches(
            read_chunks,
            fn_kwargs={"settings": settings, "rows": settings.chunk_size, "done": done},
            **ONE_CHUNK,
        )
        .repartition(target_num_rows_per_block=1)
        .map_batches(look_up, fn_kwargs={"step": step, "parser": parser_of(settings)}, **ONE_CHUNK)
    )
    chunks = _with_conformers(chunks, step, plans, pool)
    views = [view for view, plan in plans.items() if graphs_by_tasks(plan, pool)]
    if views:
        chunks = chunks.map_batches(
            with_graphs, fn_kwargs={"step": step, "views": views}, **ONE_CHUNK
        )
    return chunks.map_batches(
        ScoreChunk,
        fn_constructor_kwargs={
            "step": step, "pool": pool, "judge": ray.put(judge.ready()),
            "output": absolute(settings.output_dir),
        },
        batch_format="pyarrow",
        batch_size=1,
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        compute=pool.strategy(),
    )  # fmt: skip


def scored_here(
    plans: dict[str, EncodingPlan],
    pool: EncoderPool,
    judge: Judge,
    settings: ScoreSettings,
    files: list[DataFile],
    done: frozenset[str],
    whole: bool,
) -> Generator[pa.Table, None, frozenset[str] | None]:
    """What comes from `scoring_graph`; encoders and detector work in this process.

    It stops where that takes longer than actors take to start, and returns the chunks to leave
    out from then on; None if it has done all. Conformers are made by tasks as ever; those of the
    few chunks that are begun when it stops are made again, where the store does not keep them.

    Parameters
    ----------
    whole : the library is known to be short, so that all of it is done here.
    """
    step, busy, names = _step(plans), 0.0, set(done)
    numbered = pa.Table.from_pylist(_numbered(files))
    chunks = read_chunks(numbered, settings, settings.chunk_size, done)
    ready = by_tasks(ready_chunk, chunks, step=step, parser=parser_of(settings))
    with one_core_a_thread():
        score = ScoreChunk(step, pool, ray.put(judge.ready()), absolute(settings.output_dir))
        for chunk in ready:
            if not whole and busy + expected_seconds(chunk, plans) > ACTORS_START:
                return frozenset(names)
            started = time.perf_counter()
            counts = score(chunk)
            busy += time.perf_counter() - started
            names.add(chunk["chunk"][0].as_py())
            yield counts
    return None


def starts_here(
    first: pa.Table | None, whole: bool, plans: dict[str, EncodingPlan], pool: EncoderPool
) -> bool:
    """Whether this process gets further with a library than actors until these have started.

    So it is with a short library, and with one whose features the store has.

    Parameters
    ----------
    first : its first rows, as of `parse_block`.
    whole : they are all that it has.
    """
    if not may_work_here(plans.values(), pool):
        return False
    if first is None:
        return whole
    wanted, seconds = unique(first.filter(first["reason"].is_null())), 0.0
    for plan in plans.values():
        missing = without(wanted, known(wanted, plan))
        missing = without(missing, refused(missing, plan))
        seconds += missing.num_rows and missing.num_rows * core_seconds(plan)
    return seconds <= (ACTORS_START if whole else FEW_SECONDS)


def expected_seconds(chunk: pa.Table, plans: dict[str, EncodingPlan]) -> float:
    """Roughly what encoding takes one core, of a chunk with its conformers."""
    seconds = 0.0
    for view, plan in plans.items():
        molecules = table_of(chunk, of_view("molecules", view))
        count = molecules.num_rows - pc.count(molecules["reason"]).as_py()
        seconds += count and count * core_seconds(plan)
    return seconds


def _step(plans: dict[str, EncodingPlan]) -> Step:
    return Step(ray.put(plans), new_run_stamp())


def _numbered(files: list[DataFile]) -> list[dict[str, Any]]:
    return [{"number": number, **file._asdict()} for number, file in enumerate(files)]


def _with_conformers(
    chunks: ray.data.Dataset, step: Step, plans: dict[str, EncodingPlan], pool: EncoderPool
) -> ray.data.Dataset:
    made = [plan for plan in plans.values() if plan.tables.conformers is not None]
    if not made:
        return chunks
    if made[0].settings.conformer_method != NVMOLKIT:
        return chunks.map_batches(Embed(step).__call__, **ONE_CHUNK)
    return chunks.map_batches(
        Embed, fn_constructor_kwargs={"step": step}, batch_format="pyarrow", batch_size=1,
        num_gpus=pool.gpus, compute=pool.strategy(),
    )  # fmt: skip
