"""The flow from a library's files to scores, as a list of steps, a chunk of rows at a time.

A chunk is done when its scores' file is there, so a run that is killed continues with the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import ray
import ray.data

from pipeline.conformers.conformer import NVMOLKIT
from pipeline.encoding.graph import ON_A_CORE
from pipeline.encoding.plan import EncoderPool, EncodingPlan
from pipeline.encoding.short_work import most_here, threads_as_they_were
from pipeline.molecules.folders import DataFile
from pipeline.molecules.formats import stream_rows
from pipeline.molecules.parsers import parser_of
from pipeline.runtime.files import absolute
from pipeline.scoring.settings import ScoreSettings
from pipeline.scoring.steps import Embed, ScoreChunk, Step, look_up, read_chunks
from pipeline.scoring.verdicts import Judge
from pipeline.store.keyed_table import new_run_stamp

JUDGE_SECONDS = 0.002  # of a core, roughly, for a row's neighbours, scores and expected error
ONE_CHUNK = {**ON_A_CORE, "batch_size": 1}


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
    plans : of each view's encoder.
    pool : of actors that each hold all encoders.
    done : chunks to leave out.
    """
    step = _step(plans, settings)
    return _chunks(plans, step, pool, settings, files, done).map_batches(
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
) -> Iterator[pa.Table]:
    """What comes from `scoring_graph`; encoders and detector work in this process.

    For a short library (see `is_short`): conformers are made by tasks on all cores as ever.
    """
    step = _step(plans, settings)
    chunks = _chunks(plans, step, pool, settings, files, done)
    with threads_as_they_were(plans.values()):
        score = ScoreChunk(step, pool, ray.put(judge.ready()), absolute(settings.output_dir))
        for chunk in chunks.iter_batches(batch_size=1, batch_format="pyarrow"):
            yield score(chunk)


def is_short(
    files: list[DataFile],
    settings: ScoreSettings,
    plans: dict[str, EncodingPlan],
    pool: EncoderPool,
) -> bool:
    """Whether this process encodes a library before encoder actors would have started."""
    most, rows = int(most_here(plans.values(), pool, JUDGE_SECONDS)), 0
    for file in files:
        if rows <= most:
            first = next(stream_rows(file, settings, most + 1), None)
            rows += 0 if first is None else first.num_rows
    return rows <= most


def _step(plans: dict[str, EncodingPlan], settings: ScoreSettings) -> Step:
    now = {
        view: replace(plan, tables=plan.tables.snapshot(settings.keep_encodings))
        for view, plan in plans.items()
    }
    return Step(ray.put(now), new_run_stamp())


def _chunks(
    plans: dict[str, EncodingPlan],
    step: Step,
    pool: EncoderPool,
    settings: ScoreSettings,
    files: list[DataFile],
    done: frozenset[str],
) -> ray.data.Dataset:
    """Chunks of the library, looked up and with their conformers."""
    items = [{"number": number, **file._asdict()} for number, file in enumerate(files)]
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
    return _with_conformers(chunks, step, plans, pool)


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
