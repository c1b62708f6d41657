"""The store's table of residues: each residue's feature, one sequence a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.store.keyed_table import Index, KeyedTable

DTYPES = {"float16": np.float16, "float32": np.float32}


def residue_table(keys: Sequence[str], residues: Sequence[np.ndarray], precision: str) -> pa.Table:
    """Rows for a table of residues: `key`, `n` residues, and their `features`, residue by residue.

    Parameters
    ----------
    residues : (n, dim) float32 of each sequence, which `fits`.
    precision : one of DTYPES, in which they are kept.
    """
    dtype = DTYPES[precision]
    flat = [np.asarray(each, dtype).ravel() for each in residues]
    ends = np.cumsum([0, *map(len, flat)], dtype=np.int64)
    features = pa.LargeListArray.from_arrays(
        pa.array(ends), pa.array(np.concatenate([np.empty(0, dtype), *flat]))
    )
    counts = pa.array([len(each) for each in residues], pa.int32())
    return pa.table({"key": pa.array(list(keys), pa.string()), "n": counts, "features": features})


def fits(residues: np.ndarray, precision: str) -> bool:
    """Whether each value, cast to one of DTYPES, is finite."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(residues.astype(DTYPES[precision])).all())


def residue_features(
    table: KeyedTable, keys: Sequence[str], index: Index | None = None
) -> list[np.ndarray]:
    """Each sequence's residues (n, dim), in the order of keys, in the precision that is kept.

    Parameters
    ----------
    table : `Tables.residues`, of `EncodingPlan.with_residues`.
    index : of the table; read once where keys are asked for in parts.

    Raises
    ------
    RowsMissing, DamagedFile
        As `KeyedTable.read`.
    """
    rows = table.read(keys, index)
    found: list[np.ndarray] = []
    for batch in rows.to_batches():
        counts = batch.column("n").to_pylist() if batch.num_rows else []
        for features, n in zip(batch.column("features"), counts):
            found.append(features.values.to_numpy(zero_copy_only=False).reshape(n, -1))
    return found
