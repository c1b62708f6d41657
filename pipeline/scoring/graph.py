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
from pipeline.runtime.files import absolute
from pipeline.scoring.calibration import Calibration
from pipeline.scoring.settings import ScoreSettings
from pipeline.scoring.steps import Embed, ScoreChunk, Step, look_up, read_chunks
from pipeline.store.keyed_table import new_run_stamp
from pipeline.training.checkpoint import Checkpoint

ONE_CHUNK = {**ON_A_CORE, "batch_size": 1}


def scoring_graph(
    checkpoint: Checkpoint,
    plan: EncodingPlan,
    pool: EncoderPool,
    calibration: Calibration,
    settings: ScoreSettings,
    files: list[DataFile],
    done: frozenset[str],
) -> ray.data.Dataset:
    """The flow from data files to counts of what was written.

    Parameters
    ----------
    done : chunks to leave out.
    """
    tables = plan.tables.snapshot(settings.keep_encodings)
    step = Step(ray.put(replace(plan, tables=tables)), new_run_stamp())
    items = [{"number": number, **file._asdict()} for number, file in enumerate(files)]
    chunks = (
        ray.data.from_items(items, override_num_blocks=len(items))
        .map_batches(
            read_chunks,
            fn_kwargs={"settings": settings, "rows": settings.chunk_size, "done": done},
            **ONE_CHUNK,
        )
        .repartition(target_num_rows_per_block=1)
        .map_batches(
            look_up, fn_kwargs={"step": step, "fragments": settings.fragments}, **ONE_CHUNK
        )
    )
    return _with_conformers(chunks, step, plan, pool).map_batches(
        ScoreChunk,
        fn_constructor_kwargs={
            "step": step, "pool": pool, "head": ray.put(checkpoint.head),
            "calibration": calibration, "alpha": settings.alpha,
            "output": absolute(settings.output_dir),
        },
        batch_format="pyarrow",
        batch_size=1,
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        compute=pool.strategy(),
    )  # fmt: skip


def _with_conformers(
    chunks: ray.data.Dataset, step: Step, plan: EncodingPlan, pool: EncoderPool
) -> ray.data.Dataset:
    if plan.settings.conformer_method != NVMOLKIT:
        return chunks.map_batches(Embed(step).__call__, **ONE_CHUNK)
    return chunks.map_batches(
        Embed, fn_constructor_kwargs={"step": step}, batch_format="pyarrow", batch_size=1,
        num_gpus=pool.gpus, compute=pool.strategy(),
    )  # fmt: skip
