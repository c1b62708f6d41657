"""What a suite leaves: the table of cells, summary.json, tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.audit import LEAST_LEAD
from pipeline.evaluation.metrics import METRICS
from pipeline.runtime.files import remove, write_atomically
from pipeline.suite.results.compared import compared
from pipeline.suite.results.statistics import groups_of, method_of
from pipeline.suite.results.table import (
    DONE,
    FAILED,
    TELLS,
    TELLS_NOTHING,
    TESTS_LITTLE,
    write_table,
)
from pipeline.suite.results.tables import tables_of
from pipeline.suite.settings import SuiteSettings


def write_output(
    settings: SuiteSettings,
    output_dir: str,
    rows: Sequence[Mapping[str, Any]],
    detectors: Sequence[str],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Write cells.parquet, cells.csv and the tables; the content of summary.json.

    What an earlier grid left in the folder of summary and tables goes first.

    Parameters
    ----------
    rows : as `table.rows_of` gives them.
    more : `failed_trials` and `failed_audits`, for the summary.

    Raises
    ------
    InputError
        If --reference names no method.
    """
    groups = groups_of(rows)
    statuses = Counter(row["status"] for row in rows)
    any_seed = sum(bool(row["any_seed"]) for row in rows)
    summary = {
        "cells": {
            "done": statuses[DONE],
            "failed": statuses[FAILED],
            "fitted_once_for_all_seeds": any_seed,
        },
        "seeds": settings.seeds,
        "num_seeds": len(settings.seeds),
        "groups": groups,
        "cross_dataset_metrics": _cross(groups),
        "statistics": compared(settings, output_dir, groups, rows, detectors),
        "warnings": warnings_of(groups),
        "failed": failures_of(rows),
        **more,
    }
    for stale in ("summary.json", "tables"):
        remove(f"{output_dir}/{stale}")
    write_table(output_dir, rows)
    for name, table in tables_of(summary).items():
        write_atomically(f"{output_dir}/tables/{name}.md", table.markdown().encode())
        write_atomically(f"{output_dir}/tables/{name}.tex", table.latex().encode())
    return summary


def failures_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Why cells failed, each reason once with its number of cells."""
    names = ("data", "test_data", "encoder", "detector", "reason")
    counts = Counter(tuple(row[name] for name in names) for row in rows if row["status"] == FAILED)
    return [{**dict(zip(names, key)), "cells": count} for key, count in counts.items()]


def warnings_of(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Of each test set on which a single descriptor does nearly as well as methods, which ones."""
    found: dict[tuple[str, ...], list[str]] = {}
    for group in groups:
        if group["warning"]:
            area = group["best_descriptor_auroc"]
            meaning = TESTS_LITTLE if area >= TELLS else TELLS_NOTHING
            told = (
                f"{group['best_descriptor']} alone has AUROC {area:.3f}, and the methods listed "
                f"do not lead it by {LEAST_LEAD}: {meaning}"
            )
            key = group["data"], group["test_data"], told
            found.setdefault(key, []).append(method_of(group, with_encoder=True))
    return [
        {**dict(zip(("data", "test_data", "warning"), key)), "methods": methods}
        for key, methods in found.items()
    ]


def _cross(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By method, data set trained on and data set tested on, the metrics' mean and deviation."""
    made: dict[str, Any] = {}
    for group in groups:
        if group["data"] == group["test_data"]:
            continue
        metrics = {
            name: {key: group["metrics"][name][key] for key in ("mean", "std")} for name in METRICS
        }
        of_method = made.setdefault(method_of(group, with_encoder=True), {})
        of_method.setdefault(group["data"], {})[group["test_data"]] = {
            "metrics": metrics,
            "num_seeds": group["num_seeds"],
            "dropped_test_molecules": group["dropped_test_molecules"],
        }
    return made
