"""The store's trunk table: activations at the cut, one molecule a row, and the room they take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import fsspec
import numpy as np
import pyarrow as pa
import torch
from fsspec.implementations.local import LocalFileSystem
from torch import Tensor

from pipeline.encoders.unimol.finetuning.trunk import StoredRows, TrunkRow
from pipeline.encoders.unimol.model import UniMolConfig
from pipeline.runtime.files import absolute
from pipeline.runtime.telemetry import GIB

# x stays in float32: it is the smaller part, and rounding it spoils a step's gradient, in which
# the nearly equal energies of ID and OOD molecules cancel (bench/finetune.md).
PAIR_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SHARE_OF_FREE_SPACE = 0.5
SCHEMA = pa.schema(
    [("key", pa.string()), ("n", pa.int32()), ("x", pa.large_binary()), ("pair", pa.large_binary())]
)


def trunk_table(keys: Sequence[str], rows: Sequence[TrunkRow]) -> pa.Table:
    """Rows for a trunk table: `key`, `n`, and the bytes of `x` (n, D) and `pair` (H, n, n)."""
    columns = {
        "key": list(keys),
        "n": [len(row.x) for row in rows],
        "x": [_bytes(row.x) for row in rows],
        "pair": [_bytes(row.pair) for row in rows],
    }
    return pa.table(columns, schema=SCHEMA)


def trunk_rows(table: pa.Table, precision: str) -> StoredRows:
    """What `trunk_table` made rows of; the tensors share the table's memory."""
    dtype = PAIR_DTYPES[precision]
    rows = []
    for batch in table.to_batches():
        x, pair = batch.column("x"), batch.column("pair")
        for place, n in enumerate(batch.column("n").to_pylist()):
            rows.append(
                TrunkRow(
                    _tensor(x[place], torch.float32).view(n, -1),
                    _tensor(pair[place], dtype).view(-1, n, n),
                )
            )
    return StoredRows(rows)


def bytes_of(tokens: np.ndarray, config: UniMolConfig, precision: str) -> int:
    """Bytes that the activations of molecules with so many tokens take."""
    tokens = tokens.astype(np.int64)
    pairs = tokens**2 * config.heads * PAIR_DTYPES[precision].itemsize
    return int((tokens * config.width * torch.float32.itemsize + pairs).sum())


def space_for_trunk(cache_root: str, limit_gb: float | None) -> float:
    """Bytes that the trunk table may take: the limit, else half of what is free on a local disk.

    An object store has no end, so without a limit it takes any size.
    """
    if limit_gb is not None:
        return limit_gb * GIB
    fs, path = fsspec.url_to_fs(absolute(cache_root))
    if not isinstance(fs, LocalFileSystem):
        return float("inf")
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return SHARE_OF_FREE_SPACE * shutil.disk_usage(path).free


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def _tensor(scalar: pa.LargeBinaryScalar, dtype: torch.dtype) -> Tensor:
    # The buffer is read-only; nobody writes to these rows. torch asks for a writable one first,
    # after which PyArrow 25's own buffer gives none at all; a view of it does.
    return torch.frombuffer(memoryview(scalar.as_buffer()), dtype=dtype)
