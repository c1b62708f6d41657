"""Small grids: two splits of shipped molecules, and settings that take little time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.suite.settings import SuiteSettings

NAMES = ("train", "iid_val", "iid_test", "ood_val", "ood_test")
SHARED = {"ood_val_by": "molecule", "epochs": 3, "hidden_dim": 16, "device": "cpu", "views": None}
SEEDS = [1, 2]


def write_split(path: Path, inside: list[str], outside: list[str]) -> None:
    """40 training molecules and 10 of each other kind of these, and 20 OOD ones twice."""
    parts = [inside[:40], inside[40:50], inside[50:60], outside[:20], outside[20:40]]
    items = {name: [{"smiles": s} for s in part] for name, part in zip(NAMES, parts)}
    path.write_text(json.dumps({"split": items}))


def settings(home: Path, **changes: Any) -> SuiteSettings:
    """The grid of `test_run`; its changes are grids of their own, in a folder of their own."""
    usual = {
        "data": [str(home / "a.json"), str(home / "b.json")], "encoders": ["descriptors"],
        "detectors": ["knn", "isolation_forest", "msp", "dpo"], "seeds": SEEDS, "cross": True,
        "sweep": {"dpo_beta": [0.1, 1.0]}, "output_dir": str(home / "out"),
        "cache_root": str(home / "store"), "bootstrap_samples": 100, "parallel_runs": 1,
    }  # fmt: skip
    return SuiteSettings(**{**SHARED, **usual, **changes})


def cells_in(output: Path) -> list[dict[str, Any]]:
    """The rows of cells.parquet."""
    return pq.read_table(output / "cells.parquet").to_pylist()


def of(rows: list[dict[str, Any]], **labels: Any) -> list[dict[str, Any]]:
    """The rows with these values."""
    return [row for row in rows if all(row[name] == value for name, value in labels.items())]
