"""What was rejected and why, of any folder that has such rows."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind
from pipeline.molecules.rejected import REJECTED, kind_of
from pipeline.report.blocks import Cell, Section, Table, count
from pipeline.report.reading import Folder, read_parquet, rows_of
from pipeline.scoring.output.output_folder import part_files

_HEADINGS = {SMILES.name: "SMILES", SEQUENCE.name: "Sequence"}


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
    rows, kind = _rows(folder, name)
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
            "Rejected rows", ("Id", _HEADINGS[kind.name], "Stage", "Reason"),
            [tuple(Cell(row[key] or "–") for key in ("id", "smiles", "stage", "reason"))
             for row in rows.slice(0, most).to_pylist()],
            left_out=max(0, rows.num_rows - most),
        )
    )  # fmt: skip


def _rows(folder: Folder, name: str) -> tuple[pa.Table, Kind]:
    """Rows of a file or of a folder's parts, and the kind of their molecules."""
    files = [f"{folder.path}/{name}"]
    if not name.endswith(".parquet"):
        files = part_files(folder.uri, name)
    parts = [read_parquet(folder.fs, file, REJECTED.names) for file in files]
    if not parts:
        return REJECTED.empty_table(), SMILES
    return pa.concat_tables(parts), rows_of(folder.fs, files[0])[1]


def _texts(rows: pa.Table, name: str) -> list[str | None]:
    return pc.fill_null(rows[name], "").to_pylist()
