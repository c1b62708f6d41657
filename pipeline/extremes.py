"""The molecules at both ends of a library's scores, as a table and as drawings."""

from __future__ import annotations

from typing import NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.drawings import molecules_figure
from pipeline.score_steps import REJECTED_FOLDER, SCORES, SCORES_FOLDER
from pipeline.store import absolute, write_atomically
from pipeline.text import csv_bytes


class Extremes(NamedTuple):
    """Counts of a scored library: its rows, those scored, rejected and called OOD."""

    rows: int
    scored: int
    rejected: int
    ood: int


def write_extremes(output_dir: str, top: int) -> Extremes:
    """Write top.csv, most_ood.png and least_ood.png beside a library's scores, in one pass.

    Parameters
    ----------
    top : molecules at either end; with 0 nothing is written.
    """
    most = least = SCORES.empty_table()
    scored = ood = 0
    for batch in _dataset(output_dir, SCORES_FOLDER, SCORES).to_batches():
        table = pa.table(batch)
        scored += table.num_rows
        ood += pc.sum(table["is_ood"]).as_py() or 0
        most = _ends(pa.concat_tables([most, table]), top, "descending")
        least = _ends(pa.concat_tables([least, table]), top, "ascending")
    rejected = _dataset(output_dir, REJECTED_FOLDER, pa.schema([])).count_rows()
    if top and scored:
        rows = [
            (end, rank, *row.values())
            for end, table in (("most OOD", most), ("least OOD", least))
            for rank, row in enumerate(table.to_pylist(), start=1)
        ]
        content = csv_bytes(["end", "rank", *SCORES.names], rows)
        write_atomically(f"{output_dir}/top.csv", content)
        for name, title, table in (
            ("most_ood", "Highest energies: the most OOD", most),
            ("least_ood", "Lowest energies: the least OOD", least),
        ):
            molecules_figure(table.to_pylist(), title, f"{output_dir}/{name}.png")
    return Extremes(scored + rejected, scored, rejected, ood)


def _dataset(output_dir: str, folder: str, schema: pa.Schema) -> ds.Dataset:
    fs, path = fsspec.url_to_fs(f"{absolute(output_dir)}/{folder}")
    if not fs.exists(path):
        return ds.dataset(schema.empty_table())
    fs.invalidate_cache(path)
    return ds.dataset(path, filesystem=fs, format="parquet")


def _ends(table: pa.Table, top: int, order: str) -> pa.Table:
    """The first `top` rows by energy, equal ones by id."""
    keys = [("energy", order), ("id", "ascending")]
    return table.take(pc.select_k_unstable(table, k=min(top, table.num_rows), sort_keys=keys))
