"""A sample of a library of any size."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.molecules.folders import data_files
from pipeline.molecules.formats import stream_rows
from pipeline.molecules.reading.raw_rows import RAW
from pipeline.molecules.settings import LibrarySettings
from pipeline.runtime.errors import InputError

PIECE = 10_000  # rows that are read at a time


def sampled_rows(settings: LibrarySettings, most: int, seed: int) -> pa.Table:
    """A uniform sample of a library's rows, in its order, read once piece by piece."""
    rng = np.random.default_rng([seed, most])
    kept, chances = RAW.empty_table(), np.zeros(0)
    for file in data_files(settings.data_file, settings.sequence_column):
        for piece in stream_rows(file, settings, PIECE):
            drawn = rng.random(piece.num_rows)
            joint = np.concatenate([chances, drawn])
            rows = np.sort(np.argsort(joint, kind="stable")[:most])
            table = pa.concat_tables([kept, piece], promote_options="default")
            kept, chances = table.take(rows), joint[rows]
    if kept.num_rows == 0:
        raise InputError(f"{settings.data_file}: the file has no rows")
    return kept
