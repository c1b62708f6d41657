"""The flow from a library's files to scores, as a list of steps, a chunk of rows at a time.

A chunk is done when its scores' file is there, so a run that is killed continues with the others.
"""

from __future__ import annotations

from dataclasses import replace

import ray
import ray.data

from pipeline.conformers.conformer import NVMOLKIT
from pipeline.encoding.graph import ON_A_CORE
from pipeline.encoding.plan import EncoderPool, EncodingPlan
from pipeline.molecules.folders import DataFile
from pipeline.molecules.parsers import parser_of
from pipeline.runtime.files import absolute
from pipeline.scoring.settings import ScoreSettings
from pipeline.scoring.steps import Embed, ScoreChunk, Step, look_up, read_chunks
from pipeline.scoring.verdicts import Judge
from pipeline.store.keyed_table import new_run_stamp

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
    now = {
        view: replace(plan, tables=plan.tables.snapshot(settings.keep_encodings))
        for view, plan in plans.items()
    }
    step = Step(ray.put(now), new_run_stamp())
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
    return _with_conformers(chunks, step, plans, pool).map_batches(
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
