"""A chunk of a library on its way: one row, its tables as Arrow bytes in it.

So no step can mix chunks or tear one apart.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def chunk_name(file: int, place: int) -> str:
    """The name that a chunk's results have."""
    return f"part-{file:05d}-{place:07d}"


def of_view(name: str, view: str) -> str:
    """The name that a chunk's table of one view has."""
    return f"{name} {view}"


def chunk_of(name: str, **tables: pa.Table) -> pa.Table:
    """A chunk: `chunk`, its name, and its tables by their names."""
    return pa.table({"chunk": [name], **{key: _cell(table) for key, table in tables.items()}})


def table_of(chunk: pa.Table, name: str) -> pa.Table:
    """One of a chunk's tables."""
    return pa.ipc.open_stream(chunk[name][0].as_buffer()).read_all()


def with_table(chunk: pa.Table, name: str, table: pa.Table) -> pa.Table:
    """A chunk with another table in the place of one."""
    return chunk.set_column(chunk.column_names.index(name), name, _cell(table))


def _cell(table: pa.Table) -> pa.Array:
    """A column of one row, which has the table in it; the bytes are not copied."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue()
    ends = pa.py_buffer(np.array([0, content.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, content])
