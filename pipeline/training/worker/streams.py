"""Rows of the store's tables as Ray Data streams; those who read them do without torch."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from pipeline.store.keyed_table import Index, KeyedTable

NOT_TRAINED_ON = ("key", "structure")  # columns of the store's tables


def stream_of(table: KeyedTable, index: Index, keys: Sequence[str]) -> ray.data.Dataset:
    """A lazy dataset of some molecules' rows of a table, one read task a shard."""
    places = table.places(keys, index)
    shards = pc.unique(places["shard"]).to_pylist()
    blocks = [places.filter(pc.equal(places["shard"], shard)) for shard in shards]
    dataset = ray.data.from_arrow(blocks).map_batches(
        _read, fn_kwargs={"table": table}, batch_format="pyarrow", batch_size=None
    )
    dataset.context.execution_options.preserve_order = True  # a seed gives one order of rows
    return dataset


def _read(places: pa.Table, table: KeyedTable) -> pa.Table:
    rows = table.read_places(places)
    return rows.drop_columns([name for name in NOT_TRAINED_ON if name in rows.column_names])
