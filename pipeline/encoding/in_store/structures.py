"""What kind of structure each molecule's features come from; see `conformers.structure`.

It stands beside the features in the store. For features of an earlier version it is found out
from the conformers, if the store has them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.conformers.structure import structure_of
from pipeline.encoding.in_store.tables import Tables
from pipeline.store.keyed_table import KeyedTable

log = logging.getLogger(__name__)

COLUMN = "structure"


def rows_of(batch: pa.Table) -> list[dict[str, Any]]:
    """One dict a row; lists (`atoms`, `coords`) as slices of one array, not as Python lists."""
    lists = [name for name in batch.column_names if pa.types.is_list(batch.schema.field(name).type)]
    rows = batch.drop_columns(lists).to_pylist()
    for name in lists:
        column = batch[name].combine_chunks()
        values, ends = column.values.to_numpy(), column.offsets.to_numpy()
        for row, start, end in zip(rows, ends, ends[1:]):
            row[name] = values[start:end]
    return rows


def structure_of_row(row: dict[str, Any], tables: Tables) -> str | None:
    """The structure of a row of CONFORMERS to the encoder whose tables these are."""
    identity = tables.identity
    return structure_of(
        row["atoms"], row["coords"], row.get("kind"),
        hydrogens=identity["hydrogens"], max_atoms=identity.get("max_atoms"),
    )  # fmt: skip


def structures(keys: pa.ChunkedArray, tables: Tables) -> pa.ChunkedArray:
    """The structures of molecules that have features, in order; null where nobody knows.

    All are null for an encoder that needs no conformers.
    """
    if tables.conformers is None or len(keys) == 0:
        return pa.chunked_array([pa.nulls(len(keys), pa.string())])
    found = tables.features.read(keys.to_pylist(), columns=["key", COLUMN], optional=[COLUMN])
    return with_structures(found, tables)[COLUMN]


def with_structures(features: pa.Table, tables: Tables) -> pa.Table:
    """Rows of the features table, with the column `structure` filled where the store knows it."""
    if COLUMN not in features.column_names:
        features = features.append_column(COLUMN, pa.nulls(features.num_rows, pa.string()))
    missing = features[COLUMN].is_null()
    if tables.conformers is None or not pc.any(missing).as_py():
        return features
    keys = pc.unique(features["key"].filter(missing))
    found = dict(_from_conformers(keys.to_numpy(zero_copy_only=False), tables))
    log.info(
        "structures of %s molecules whose features are an earlier version's: %s told from their "
        "conformers, %s unknown",
        f"{len(keys):,}", f"{len(found):,}", f"{len(keys) - len(found):,}",
    )  # fmt: skip
    old = pa.array([found.get(key) for key in features["key"].to_pylist()], pa.string())
    place = features.column_names.index(COLUMN)
    return features.set_column(place, COLUMN, pc.coalesce(features[COLUMN], old))


def _from_conformers(keys: np.ndarray, tables: Tables) -> Iterator[tuple[str, str | None]]:
    """Keys that the table of conformers has, with their structures; one shard in memory."""
    conformers: KeyedTable = tables.conformers
    index = conformers.index()
    places = conformers.places(keys[index.find(keys) >= 0].tolist(), index)
    for shard in pc.unique(places["shard"]).to_pylist():
        found = conformers.read_places(places.filter(pc.equal(places["shard"], shard)))
        for row in rows_of(found):
            yield row["key"], structure_of_row(row, tables)
