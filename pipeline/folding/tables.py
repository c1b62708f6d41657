"""The store's tables of structures, their columns, and how a training reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.in_store.tables import REJECTIONS
from pipeline.folding.features import CODE_VERSION, COLUMNS, STORED, WIDTH, ResidueFeatures
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import read_json
from pipeline.store.bounded import GIB, BoundedTable

NAME, STAGE = "structures", "structure"
FEATURES = "features"
# A sequence's features, residue by residue, where they come from (a model, or a file and its
# chain), its mean pLDDT, and what had to be settled.
STRUCTURES = pa.schema(
    [
        ("key", pa.string()),
        ("residues", pa.int32()),
        (FEATURES, pa.large_list(pa.float16())),
        ("source", pa.string()),
        ("plddt", pa.float32()),
        ("notes", pa.list_(pa.string())),
    ]
)
# What became of a sequence, and the maker's peaks of memory up to it.
OUTCOMES = pa.schema(
    [*REJECTIONS, ("residues", pa.int32()), ("gpu_gb", pa.float64()), ("resident_gb", pa.float64())]
)
BYTES_PER_RESIDUE = WIDTH * np.dtype(STORED).itemsize
# Measured: of a row with three notes, and of a shard with none; few shards have fewer rows.
BYTES_PER_ROW, BYTES_PER_SHARD, ROWS_OF_SHARD = 200, 2200, 32


def identity(structures: str, **more: Any) -> dict[str, Any]:
    """What decides a structure's features, JSON-ready: how it is made, and what is kept of it."""
    what = {"structures": structures, "code_version": CODE_VERSION, "columns": list(COLUMNS)}
    return {**what, **more}


def structure_row(
    key: str, features: np.ndarray, source: str, notes: Iterable[str] = ()
) -> dict[str, Any]:
    """A row of STRUCTURES, of features (n, WIDTH)."""
    plddt = features[:, COLUMNS.index("plddt")]
    known = plddt[np.isfinite(plddt)]
    return {
        "key": key,
        "residues": len(features),
        FEATURES: features.astype(STORED).ravel(),
        "source": source,
        "plddt": float(known.mean()) if len(known) else None,
        "notes": sorted(notes),
    }


def kept_rows(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of `structure_row` as a table to write."""
    return pa.Table.from_pylist(list(rows), schema=STRUCTURES)


def outcome(row: Mapping[str, Any], reason: str | None = None, **peaks: float) -> dict[str, Any]:
    """A row of OUTCOMES, of a sequence (`key`, `smiles`) with a structure, or why it has none."""
    return {
        "key": row["key"],
        "smiles": row["smiles"],
        "stage": STAGE if reason else None,
        "reason": reason,
        "residues": len(row["smiles"]),
        **peaks,
    }


def bytes_needed(sequences: pa.ChunkedArray) -> float:
    """What the structures of some sequences take in the store, about."""
    residues, rows = pc.sum(pc.utf8_length(sequences)).as_py() or 0, len(sequences)
    shards = math.ceil(rows / ROWS_OF_SHARD)
    return residues * BYTES_PER_RESIDUE + rows * BYTES_PER_ROW + shards * BYTES_PER_SHARD


def check_room(sequences: pa.ChunkedArray, most_gb: float) -> None:
    """InputError if the structures of some sequences together take more than they may."""
    needed = bytes_needed(sequences) / GIB
    if needed > most_gb:
        raise InputError(
            f"--store_gb {most_gb:g}: the structures of these {len(sequences):,} sequences take "
            f"{needed:.3g} GiB, so that the first would go before the last are there; give at "
            f"least {1.05 * needed:.2g}"
        )


def opened(uri: str, most_gb: float = np.inf) -> BoundedTable:
    """The table that a run's summary names (`structures`).

    Raises
    ------
    InputError
        If there is none.
    """
    root, _, rest = uri.rstrip("/").rpartition(f"/{NAME}/")
    settings = read_json(f"{uri.rstrip('/')}/_settings.json")
    if not root or not isinstance(settings, Mapping) or settings.get("columns") != list(COLUMNS):
        raise InputError(f"{uri}: no structures of this version; give what jobs.fold says of them")
    table = BoundedTable(root, NAME, dict(settings), most_gb, dense=True)
    if table.key != rest:
        raise InputError(f"{uri}: its _settings.json is of another table; run jobs.fold again")
    return table


def structure_features(table: BoundedTable, keys: Sequence[str]) -> list[ResidueFeatures | None]:
    """Features of sequences' residues, in the order of the keys; None of those that have none.

    Parameters
    ----------
    table : of `opened`.
    keys : of `pipeline.molecules.sequences.sequence_key`; a key may repeat.

    Raises
    ------
    pipeline.runtime.errors.DamagedFile
        If a shard is damaged or was removed meanwhile, to make room.
    """
    index = table.index()
    there = [key for key in dict.fromkeys(keys) if key in index]
    if not there:
        return [None] * len(keys)
    rows = table.read(there, index, columns=["key", FEATURES])
    found = dict(zip(there, map(ResidueFeatures.of, matrices(rows))))
    return [found.get(key) for key in keys]


def matrices(rows: pa.Table) -> list[np.ndarray]:
    """The features (n, WIDTH) float16 of each of some rows."""
    column = rows[FEATURES].combine_chunks()
    values, ends = column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()
    return [values[start:end].reshape(-1, WIDTH) for start, end in zip(ends, ends[1:])]
