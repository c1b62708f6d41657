"""A suite: tables over data sets × methods, heat maps, and which methods differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.audit import LEAST_LEAD
from pipeline.report.blocks import (
    Cell,
    Chart,
    Charts,
    Facts,
    Heading,
    Section,
    Table,
    count,
    number,
)
from pipeline.report.cells import METRICS, RIVALS, Mean, matrix, means_of, method_of
from pipeline.report.heat_map import heat_map
from pipeline.report.rank_diagram import rank_diagram
from pipeline.report.ranks import Ranks, average_ranks
from pipeline.report.reading import Folder
from pipeline.report.settings import ReportSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.text import some

CELLS = "cells.parquet"
REACH = (0.5, 1.0)  # AUROC of no colour and of full colour
MOST_RANKED, MOST_MAPPED = 24, 60  # methods of the diagram and of the heat map


def suite_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.suite left."""
    cells = folder.parquet(CELLS)
    section = Section("Suite", folder.place)
    lacking = {"data", "encoder", "detector", "auroc"} - set(cells.column_names)
    if lacking:
        raise InputError(f"{folder.uri}/{CELLS} has no column {', '.join(sorted(lacking))}")
    means = means_of(cells)
    _counts(section, cells, means)
    _failed(section, cells, settings.table_rows)
    if not means:
        section.lacks("No cell is done: there is nothing to compare.")
        return section
    own = [each for each in means if each.data == each.test_data]
    rows = list(dict.fromkeys(each.data for each in own))
    columns = list(dict.fromkeys(each.method for each in own))
    areas = matrix(means, rows, columns, "auroc")
    _warnings(section, own)
    if own:
        _ranks(section, rows, columns, areas)
        _versus(section, folder.json("summary.json").get("statistics"))
        section.add(Heading("Data sets by methods"), Charts([_map(rows, columns, areas)]))
        section.add(_table(own, "Mean ± standard deviation over seeds", settings.table_rows))
    _cross(section, means, settings.table_rows)
    return section


def _counts(section: Section, cells: pa.Table, means: list[Mean]) -> None:
    names = {"data": "Data sets", "encoder": "Encoders", "detector": "Detectors", "seed": "Seeds"}
    facts = [("Cells", f"{cells.num_rows:,}")]
    for name, title in names.items():
        if name in cells.column_names:
            values = list(map(str, pc.unique(cells[name]).to_pylist()))
            facts.append((title, f"{len(values)}: {some(values)}"))
    facts.append(("Methods", f"{len({each.method for each in means}):,}"))
    best = max((m for m in means if m.data == m.test_data), key=lambda m: m.mean("auroc"),
               default=None)  # fmt: skip
    if best is not None:
        section.say(
            f"Best AUROC: {best.mean('auroc'):.3f} by {best.method} on {best.data}.", "verdict"
        )
    section.add(Facts(facts))


def _failed(section: Section, cells: pa.Table, most: int) -> None:
    if "status" not in cells.column_names:
        section.lacks("Whether cells failed is not told: there is no column status.")
        return
    failed = cells.filter(pc.not_equal(cells["status"], "done")).to_pylist()
    if not failed:
        section.say("All cells are done.", "note")
        return
    section.say(f"Cells that failed or are not done: {len(failed):,}; the others count.", "warning")
    rows = [
        tuple(Cell(str(v or "–")) for v in (row["data"], row.get("test_data"), method_of(row),
                                            row.get("seed"), row.get("reason") or row["status"]))
        for row in failed[:most]
    ]  # fmt: skip
    header = ("Data", "Test data", "Method", "Seed", "Reason")
    section.add(Table("Cells that failed", header, rows, left_out=max(0, len(failed) - most)))


def _warnings(section: Section, own: list[Mean]) -> None:
    """Data sets on which what needs no training does as well as the best method."""
    told = False
    for data in dict.fromkeys(each.data for each in own):
        mine = [each for each in own if each.data == data]
        best = max(mine, key=lambda each: each.mean("auroc"))
        for rival, title in RIVALS.items():
            area = best.mean(rival)
            told |= np.isfinite(area)
            if best.mean("auroc") - area < LEAST_LEAD - 1e-9:
                of = f" ({best.descriptor})" if "descriptor" in rival and best.descriptor else ""
                section.say(
                    f"{data}: {title}{of} alone has AUROC {area:.3f}, the best method "
                    f"({best.method}) {best.mean('auroc'):.3f}: this split says little about the "
                    "methods.", "warning",
                )  # fmt: skip
    if not told:
        section.lacks("What needs no training is not compared: the cells do not have its AUROC.")


def _ranks(section: Section, rows: list[str], columns: list[str], areas: np.ndarray) -> None:
    section.add(Heading("Which methods differ?"))
    whole = np.isfinite(areas).all(axis=0)
    out = [name for name, there in zip(columns, whole) if not there]
    names = [name for name, there in zip(columns, whole) if there]
    if out:
        section.lacks(f"Methods without an AUROC on every data set are not ranked: {some(out)}.")
    if len(rows) < 2 or len(names) < 2:
        section.lacks(
            "Methods are ranked by AUROC over two data sets or more; there are "
            f"{len(names)} methods on {len(rows)}."
        )
        return
    found = average_ranks(areas[:, whole])
    order = np.argsort(found.ranks, kind="stable")
    shown = order[:MOST_RANKED]
    best = found.distance
    note = (
        f"Ranks by AUROC (mean over seeds), averaged over {len(rows)} data sets; 1 is best. Bars "
        f"join methods that are not told apart: ranks nearer than {best:.2f} (Nemenyi, α = 0.05)."
    )
    if found.friedman is not None:
        alike = "differ" if found.friedman < 0.05 else "may all be alike"
        p = "p < 0.001" if found.friedman < 0.001 else f"p = {found.friedman:.3f}"
        note += f" Friedman's test: {p}, the methods {alike}."
    if len(shown) < len(order):
        note += f" The best {len(shown)} of {len(order)} methods are drawn."
    part = Ranks(found.ranks[shown], found.distance, found.friedman, found.holm[shown])
    drawn = rank_diagram("Critical difference", [names[i] for i in shown], part, note)
    section.add(Charts([drawn]), _rank_table(names, order, found))
    if not np.isfinite(found.holm).any():
        section.lacks(
            f"Wilcoxon's test against the best is not made: {len(rows)} data sets cannot give "
            "p ≤ 0.05 (six are needed)."
        )


def _rank_table(names: list[str], order: np.ndarray, found: Ranks) -> Table:
    rows = [
        (Cell(names[i]), number(float(found.ranks[i]), 2), number(float(found.holm[i])))
        for i in order
    ]
    return Table(
        "Average ranks", ("Method", "Rank", "p against the best (Wilcoxon, Holm)"), rows,
        frozenset({1, 2}),
    )  # fmt: skip


def _versus(section: Section, statistics: dict[str, Any] | None) -> None:
    """The suite's own comparison with its reference."""
    if not statistics:
        section.lacks(
            "Differences to a reference are not shown: there is no summary.json of the suite."
        )
        return
    found = statistics.get("versus_reference") or {}
    blocks = max((each.get("blocks") or 0 for each in found.values()), default=0)
    rows = [
        (
            Cell(name), Cell(f"{each['difference']:+.3f}", each["difference"]),
            count(each["better"]), count(each["worse"]),
            number(each.get("wilcoxon_p")), number(each.get("holm_p")),
        )
        for name, each in found.items() if each.get("difference") is not None
    ]  # fmt: skip
    if rows:
        section.add(
            Table(
                f"Against {statistics['reference']}, over {blocks} blocks "
                f"({statistics['block']} each)",
                ("Method", "Difference in AUROC", "Better in", "Worse in", "Wilcoxon's p",
                 "with Holm's correction"),
                rows, frozenset(range(1, 6)),
            )
        )  # fmt: skip
    for note in statistics.get("notes") or []:
        section.say(f"{note}.", "note")


def _map(rows: list[str], columns: list[str], areas: np.ndarray) -> Chart:
    note = "– where no cell is done."
    if len(columns) > MOST_MAPPED:
        # filled, not NaN: a method may lack all
        best = np.argsort(-np.nan_to_num(areas).mean(axis=0), kind="stable")[:MOST_MAPPED]
        note += f" The best {MOST_MAPPED} of {len(columns)} methods."
        columns, areas = [columns[i] for i in np.sort(best)], areas[:, np.sort(best)]
    if len(columns) > len(rows):  # the longer side downwards, for phones
        rows, columns, areas = columns, rows, areas.T
    return heat_map(
        "AUROC by data set and method", rows, columns, areas, value_name="AUROC", reach=REACH,
        note=note,
    )  # fmt: skip


def _table(means: list[Mean], caption: str, most: int, cross: bool = False) -> Table:
    there = [name for name in METRICS if any(name in each.values for each in means)]
    rivals = [name for name in RIVALS if any(name in each.values for each in means)]
    rows = [
        (
            Cell(each.data), *([Cell(each.test_data)] if cross else []), Cell(each.method),
            count(len(each.values.get("auroc", ()))),
            *(_spread(each, name) for name in there),
            *(number(each.mean(name)) for name in rivals),
        )
        for each in means[:most]
    ]  # fmt: skip
    header = (
        "Data", *(["Test data"] if cross else []), "Method", "Seeds",
        *(METRICS[name][0] for name in there), *(f"AUROC, {RIVALS[name]}" for name in rivals),
    )  # fmt: skip
    numeric = frozenset(range(2 + cross, len(header)))
    return Table(caption, header, rows, numeric, max(0, len(means) - most))


def _spread(each: Mean, name: str) -> Cell:
    mean, spread = each.mean(name), each.spread(name)
    if np.isnan(mean):
        return Cell("–")
    return Cell(f"{mean:.3f}" + ("" if np.isnan(spread) else f" ± {spread:.3f}"), mean)


def _cross(section: Section, means: list[Mean], most: int) -> None:
    """Training × test sets, of the method with the best mean; all methods as a table."""
    across = [each for each in means if each.data != each.test_data]
    section.add(Heading("Trained on one data set, tested on another"))
    if not across:
        section.lacks("No cell was tested on another data set than its own.")
        return
    by_method: dict[str, list[float]] = {}
    for each in across:
        by_method.setdefault(each.method, []).append(each.mean("auroc"))
    best = max(by_method, key=lambda name: float(np.nanmean(by_method[name])))
    mine = [each for each in means if each.method == best]
    rows = list(dict.fromkeys(each.data for each in mine))
    columns = list(dict.fromkeys(each.test_data for each in mine))
    areas = np.full((len(rows), len(columns)), np.nan)
    for each in mine:
        areas[rows.index(each.data), columns.index(each.test_data)] = each.mean("auroc")
    drawn = heat_map(
        f"AUROC of {best}: training set (rows) by test set", rows, columns, areas,
        value_name="AUROC", reach=REACH, note="The method with the best mean over all pairs.",
    )  # fmt: skip
    section.add(Charts([drawn]), _table(across, "All pairs and methods", most, cross=True))
