"""A suite's methods as a table of the page: a row each, with mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.comparison.summary_text import spread_text
from pipeline.report.blocks import Cell, Table, count, number
from pipeline.suite.results import tables
from pipeline.suite.results.statistics import method_of
from pipeline.suite.results.table import ALL_METRICS

Group = Mapping[str, Any]


def method_name(row: Mapping[str, Any]) -> str:
    """Encoder and detector, and what a sweep varies."""
    return method_of(row, with_encoder=True)


def method_table(groups: Sequence[Group], caption: str, most: int, cross: bool = False) -> Table:
    """A row a data set (and with `cross` a test set) and method, at most `most` of them."""
    rows = [
        (
            Cell(each["data"]), *([Cell(each["test_data"])] if cross else []),
            Cell(method_name(each)), _seeds(each), *([_dropped(each)] if cross else []),
            *(_spread(each["metrics"][name]) for name in ALL_METRICS),
            _spread(each["energies"]["energy_separation"]),
            _descriptor(each), number(each["tanimoto_auroc"]),
        )
        for each in groups[:most]
    ]  # fmt: skip
    header = (
        "Data", *(["Test data"] if cross else []), "Method", "Seeds",
        *(["Seen in training, left out"] if cross else []),
        *(tables.TITLES[name].partition(" (")[0] for name in ALL_METRICS),
        "Energy separation", "AUROC, best descriptor", "AUROC, Tanimoto",
    )  # fmt: skip
    numeric = frozenset(range(2 + cross, len(header)))
    return Table(caption, header, rows, numeric, max(0, len(groups) - most))


def _seeds(group: Group) -> Cell:
    failed = len(group["failed_seeds"])
    told = f"{group['num_seeds']}" + (" †" if group["any_seed"] else "")
    return Cell(told + (f" ({failed} failed)" if failed else ""), float(group["num_seeds"]))


def _dropped(group: Group) -> Cell:
    found = group["dropped_test_molecules"]
    return Cell("–") if found is None else count(found)


def _spread(found: Mapping[str, float | None]) -> Cell:
    return Cell(spread_text(found), found["mean"])


def _descriptor(group: Group) -> Cell:
    area = group["best_descriptor_auroc"]
    return number(area) if area is None else Cell(f"{area:.3f} ({group['best_descriptor']})", area)
