"""The molecules at both ends of a library's scores, as a table and as drawings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.drawings import molecules_figure
from pipeline.runtime.errors import DamagedFile
from pipeline.runtime.files import absolute, read_all, read_parquet, write_atomically
from pipeline.runtime.text import records_csv
from pipeline.scoring.steps import REJECTED_FOLDER, SCORES, SCORES_FOLDER

MOST_DRAWN = 100


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
    top : molecules at either end, the first MOST_DRAWN of them drawn; with 0 nothing is written.

    Raises
    ------
    DamagedFile
        If parts are damaged; they were set aside, and the next run makes their chunks anew.
    """
    most = least = SCORES.empty_table()
    scored = ood = 0
    damage = None
    try:
        for table in _tables(output_dir, SCORES_FOLDER, SCORES.names):
            scored += table.num_rows
            ood += pc.sum(table["is_ood"]).as_py() or 0
            most = _ends(pa.concat_tables([most, table]), top, "descending")
            least = _ends(pa.concat_tables([least, table]), top, "ascending")
    except DamagedFile as error:  # so may rejected rows be
        damage = error
    rejected = sum(table.num_rows for table in _tables(output_dir, REJECTED_FOLDER, ["id"]))
    if damage:
        raise damage
    if top and scored:
        records = [
            {"end": end, "rank": rank, **row}
            for end, table in (("most OOD", most), ("least OOD", least))
            for rank, row in enumerate(table.to_pylist(), start=1)
        ]
        write_atomically(f"{output_dir}/top.csv", records_csv(records))
        for name, title, table in (
            ("most_ood", "Highest energies: the most OOD", most),
            ("least_ood", "Lowest energies: the least OOD", least),
        ):
            drawn = table.slice(0, MOST_DRAWN).to_pylist()
            molecules_figure(drawn, title, f"{output_dir}/{name}.png")
    return Extremes(scored + rejected, scored, rejected, ood)


def _tables(output_dir: str, folder: str, columns: list[str]) -> Iterator[pa.Table]:
    """A folder's parts; damaged ones are set aside, and their chunks no longer done."""
    output = absolute(output_dir)
    fs, path = fsspec.url_to_fs(f"{output}/{folder}")
    if not fs.exists(path):
        return
    fs.invalidate_cache(path)
    parts = sorted(part for part in fs.ls(path, detail=False) if part.endswith(".parquet"))

    def read(part: str) -> pa.Table:
        scores = f"{output}/{SCORES_FOLDER}/{part.rsplit('/', 1)[-1]}"
        return read_parquet(fs, part, columns, spoils=[scores] if folder != SCORES_FOLDER else [])

    yield from read_all(parts, read)


def _ends(table: pa.Table, top: int, order: str) -> pa.Table:
    """The first `top` rows by energy, equal ones by id."""
    keys = [("energy", order), ("id", "ascending")]
    return table.take(pc.select_k_unstable(table, k=min(top, table.num_rows), sort_keys=keys))
