"""Rows that cannot be used, each with the stage that says so and the reason."""

from __future__ import annotations

import logging

import pyarrow as pa

from pipeline.runtime.files import parquet_bytes, write_atomically

log = logging.getLogger(__name__)

REJECTED = pa.schema(
    [("id", pa.string()), ("smiles", pa.string()), ("stage", pa.string()), ("reason", pa.string())]
)


def with_ids(rejected_keys: pa.Table, molecules: pa.Table) -> pa.Table:
    """Rejections by key, as encoding gives them, as one rejection for each row with that key."""
    reasons = {row["key"]: row for row in rejected_keys.to_pylist()}
    rows = molecules.select(["id", "key", "smiles"]).to_pylist()
    return pa.Table.from_pylist(
        [
            {name: row[name] for name in ("id", "smiles")}
            | {name: reasons[row["key"]][name] for name in ("stage", "reason")}
            for row in rows
            if row["key"] in reasons
        ],
        schema=REJECTED,
    )


def write_rejected(rejected: pa.Table, folder: str, name: str = "rejected") -> None:
    """Write the rejected rows to a folder, and say how many there are."""
    write_atomically(f"{folder}/{name}.parquet", parquet_bytes(rejected))
    if rejected.num_rows:
        log.info("%s rows rejected; see %s/%s.parquet", f"{rejected.num_rows:,}", folder, name)
