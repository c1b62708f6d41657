"""Parquet: read a batch of rows at a time, text of every kind as strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.molecules.reading.content import PIECE_ROWS, Content, Piece


def open_parquet(uri: str) -> Content:
    """A Parquet file."""
    with fsspec.open(uri, "rb") as file:
        names = pq.ParquetFile(file).schema_arrow.names

    def pieces(columns: Sequence[str]) -> Iterator[Piece]:
        start = 0
        with fsspec.open(uri, "rb") as file:
            reader = pq.ParquetFile(file)
            for batch in reader.iter_batches(PIECE_ROWS, columns=list(dict.fromkeys(columns))):
                table = pa.table(batch)
                positions = np.arange(start, start + batch.num_rows)
                yield Piece({name: table[name] for name in columns}, positions)
                start += batch.num_rows

    return Content("Parquet", names, pieces)
