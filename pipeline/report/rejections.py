"""What was rejected and why, of any folder that has such rows."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.rejected import REJECTED, kind_of
from pipeline.report.blocks import Cell, Section, Table, count
from pipeline.report.reading import Folder, read_parquet
from pipeline.scoring.output_folder import part_files


def add_rejected(
    section: Section, folder: Folder, name: str, most: int, counted: int | None = None
) -> None:
    """Add tables of the reasons and of the rows, or that there are none.

    Parameters
    ----------
    name : of the Parquet file, or of the folder of its parts.
    most : rows that are shown.
    counted : how many there are by the run's summary; None: it does not say.
    """
    if not folder.has(name) and counted != 0:  # a run without rejected rows makes no folder
        told = "" if counted is None else f" The run counted {counted:,}."
        what = name if name.endswith(".parquet") else f"folder {name}"
        section.lacks(f"Rejected rows are not told: there is no {what}.{told}")
        return
    rows = _rows(folder, name)
    if rows.num_rows == 0:
        section.say("No row was rejected.", "note")
        return
    kinds = Counter(
        zip(rows["stage"].to_pylist(), (kind_of(reason or "") for reason in _texts(rows, "reason")))
    )
    section.add(
        Table(
            f"Rejected: {rows.num_rows:,} rows by reason", ("Stage", "Reason", "Rows"),
            [(Cell(stage or "–"), Cell(reason), count(n))
             for (stage, reason), n in kinds.most_common(most)],
            frozenset({2}), max(0, len(kinds) - most),
        )
    )  # fmt: skip
    section.add(
        Table(
            "Rejected rows", ("Id", "SMILES", "Stage", "Reason"),
            [tuple(Cell(row[key] or "–") for key in ("id", "smiles", "stage", "reason"))
             for row in rows.slice(0, most).to_pylist()],
            left_out=max(0, rows.num_rows - most),
        )
    )  # fmt: skip


def _rows(folder: Folder, name: str) -> pa.Table:
    if name.endswith(".parquet"):
        return folder.parquet(name, REJECTED.names)
    parts = [read_parquet(folder.fs, part, REJECTED.names) for part in part_files(folder.uri, name)]
    return pa.concat_tables(parts) if parts else REJECTED.empty_table()


def _texts(rows: pa.Table, name: str) -> list[str | None]:
    return pc.fill_null(rows[name], "").to_pylist()
