"""The cells of a suite as means over seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

METRICS = {  # of a cell, and whether higher is better
    "auroc": ("AUROC", True),
    "aupr": ("AUPR, OOD positive", True),
    "aupr_id_positive": ("AUPR, ID positive", True),
    "fpr95": ("FPR95, OOD positive", False),
    "fpr95_id_positive": ("FPR95, ID positive", False),
    "energy_separation": ("Energy separation", True),
    "train_time_seconds": ("Training, s", False),
    "evaluation_time_seconds": ("Evaluation, s", False),
}
RIVALS = {"best_descriptor_auroc": "best descriptor", "tanimoto_auroc": "Tanimoto"}


@dataclass(frozen=True)
class Mean:
    """The seeds of one method on one pair of data sets.

    Attributes
    ----------
    values : of METRICS and RIVALS, (seeds,), as far as the cells have them.
    descriptor : the best single descriptor's name, if told.
    """

    data: str
    test_data: str
    method: str
    values: dict[str, np.ndarray]
    descriptor: str | None

    def mean(self, name: str) -> float:
        """Mean over seeds; NaN without values."""
        values = self.values.get(name)
        return float(np.mean(values)) if values is not None and len(values) else float("nan")

    def spread(self, name: str) -> float:
        """Standard deviation over seeds; NaN of one seed."""
        values = self.values.get(name)
        many = values is not None and len(values) > 1
        return float(np.std(values, ddof=1)) if many else float("nan")


def means_of(cells: pa.Table) -> list[Mean]:
    """The done cells by data set, test set and method, in the order in which they first occur.

    A method is an encoder, a detector and, where settings are swept, these.
    """
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for row in cells.to_pylist():
        if row.get("status", "done") == "done":
            key = (row["data"], row.get("test_data") or row["data"], method_of(row))
            groups.setdefault(key, []).append(row)
    made = []
    for (data, test_data, method), rows in groups.items():
        values = {}
        for name in (*METRICS, *RIVALS):
            found = np.array([row[name] for row in rows if row.get(name) is not None], float)
            if len(found := found[np.isfinite(found)]):
                values[name] = found
        descriptor = next((row["best_descriptor"] for row in rows if row.get("best_descriptor")),
                          None)  # fmt: skip
        made.append(Mean(data, test_data, method, values, descriptor))
    return made


def method_of(row: dict) -> str:
    """A cell's method as the suite names it: encoder/detector (settings that are swept)."""
    swept = f" ({row['variant']})" if row.get("variant") else ""
    return f"{row['encoder']}/{row['detector']}{swept}"


def matrix(means: list[Mean], rows: list[str], columns: list[str], metric: str) -> np.ndarray:
    """Means by training set and method (rows, columns), of cells tested on their own set."""
    found = np.full((len(rows), len(columns)), np.nan)
    for each in means:
        if each.data == each.test_data:
            found[rows.index(each.data), columns.index(each.method)] = each.mean(metric)
    return found
