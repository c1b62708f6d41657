"""The table of all cells: a row each, with what its test set's audit found."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv

from pipeline.evaluation.audit import LEAST_LEAD
from pipeline.evaluation.metrics import METRICS
from pipeline.runtime.files import parquet_bytes, write_atomically
from pipeline.suite.cells import Cell, read_cell

DONE, FAILED = "done", "failed"
ALL_METRICS = (*METRICS, "aupr_id_positive", "fpr95_id_positive")
ENERGIES = ("id_mean_energy", "ood_mean_energy", "energy_separation")
COSTS = (
    "train_time_seconds", "evaluation_time_seconds", "encoding_time_seconds",
    *(f"peak_{kind}_memory_{phase}_gb" for phase in ("train", "eval", "encoding")
      for kind in ("gpu", "resident")),
)  # fmt: skip
RIVALS = (
    "best_descriptor", "best_descriptor_ood_is", "best_descriptor_auroc", "tanimoto_auroc",
    "warning",
)  # fmt: skip
TELLS = 0.6  # AUROC from which on a descriptor tells something of a split
TESTS_LITTLE = "such a split tests little"
TELLS_NOTHING = "no better than a descriptor that tells next to nothing"
LABELS = ("data", "test_data", "encoder", "detector", "seed", "any_seed", "variant")
COUNTS = (
    "id_train_molecules", "ood_train_molecules", "id_molecules", "ood_molecules",
    "dropped_test_molecules", "heads_together", "epochs_run", "best_epoch",
)  # fmt: skip
KNOWN = ("status", "reason", "val_auroc", *ALL_METRICS, *ENERGIES, *COUNTS, *COSTS, *RIVALS, "cell")
TEXTS = {*LABELS, "status", "reason", "best_descriptor", "best_descriptor_ood_is", "warning",
         "cell"} - {"seed", "any_seed"}  # fmt: skip


def rows_of(
    output_dir: str,
    cells: Sequence[Cell],
    failed: Mapping[str, str],
    audits: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The row of each cell, all with the same columns; what is not known is None.

    Parameters
    ----------
    failed : why cells failed, by key.
    audits : by key of a cell, that of its test set.
    """
    swept = dict.fromkeys(name for cell in cells for name in cell.training.variant)
    columns = [*LABELS, *swept, *KNOWN]
    rows = []
    for cell in cells:
        found: dict[str, Any] = {"status": FAILED, "reason": failed.get(cell.key)}
        if cell.key not in failed:
            found = {**read_cell(output_dir, cell.key), "status": DONE, "reason": ""}
        row = {**found, **audits[cell.key], **cell.labels, "cell": cell.key}
        row["warning"] = warning_of(row)
        rows.append({name: row.get(name) for name in columns})
    return rows


def warning_of(row: Mapping[str, Any]) -> str:
    """What to say of a test set on which one descriptor does nearly as well; else nothing."""
    best, area = row.get("best_descriptor_auroc"), row.get("auroc")
    if best is None or area is None or area - best >= LEAST_LEAD - 1e-9:
        return ""
    told = f"{row['best_descriptor']} alone has AUROC {best:.3f}, this {area:.3f}: "
    return told + (TESTS_LITTLE if best >= TELLS else TELLS_NOTHING)


def write_table(output_dir: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write cells.parquet and cells.csv."""
    table = _table(rows)
    write_atomically(f"{output_dir}/cells.parquet", parquet_bytes(table))
    content = io.BytesIO()
    pa.csv.write_csv(table, content)
    write_atomically(f"{output_dir}/cells.csv", content.getvalue())


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        columns[name] = pa.array(values, pa.string() if name in TEXTS else _kind(values))
    return pa.table(columns)


def _kind(values: Iterable[Any]) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} and kinds:
        return pa.bool_()
    if kinds <= {int} and kinds:
        return pa.int64()
    return pa.string() if str in kinds else pa.float64()
