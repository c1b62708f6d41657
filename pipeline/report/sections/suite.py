"""A suite: what it wrote into summary.json as figures and tables; nothing is computed anew."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.blocks import (
    Cell,
    Chart,
    Charts,
    Facts,
    Heading,
    Section,
    Table,
    count,
)
from pipeline.report.figures.heat_map import heat_map
from pipeline.report.figures.rank_diagram import rank_diagram
from pipeline.report.reading import Folder
from pipeline.report.sections.suite_table import Group, method_name, method_table
from pipeline.report.settings import ReportSettings
from pipeline.runtime.text import some
from pipeline.suite.results import tables
from pipeline.suite.results.table import DONE

CELLS, SUMMARY = "cells.parquet", "summary.json"
REACH = (0.5, 1.0)  # AUROC of no colour and of full colour
MOST_RANKED, MOST_MAPPED, MOST_WARNINGS = 24, 60, 12  # methods of a figure; warnings


def suite_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.suite left."""
    cells, summary = folder.parquet(CELLS), folder.json(SUMMARY)
    section = Section("Suite", folder.place)
    groups = summary.get("groups") or []
    own = [each for each in groups if each["data"] == each["test_data"]]
    across = [each for each in groups if each["data"] != each["test_data"]]
    most = settings.table_rows
    _counts(section, cells, own)
    _failed(section, cells, most)
    if not summary:
        section.lacks(
            f"Methods are not compared: there is no {SUMMARY} (has the suite ended? The same "
            "command makes it from the cells that are done)."
        )
        return section
    _warnings(section, own, summary["warnings"])
    _not_made(section, summary)
    _ranks(section, summary["statistics"], most)
    section.add(Heading("Data sets by methods"), Charts([_map(own)]))
    section.add(method_table(own, "Mean ± standard deviation over seeds", most))
    section.say(tables.ONCE, "note")
    section.add(Heading("Costs"))
    _add(section, tables.cost_table(own), 2, most)
    _cross(section, own, across, most)
    section.add(_warning_table(summary["warnings"], most))
    return section


def _counts(section: Section, cells: pa.Table, own: Sequence[Group]) -> None:
    names = {"data": "Data sets", "encoder": "Encoders", "detector": "Detectors", "seed": "Seeds"}
    facts = [("Cells", f"{cells.num_rows:,}")]
    for name, title in names.items():
        values = list(map(str, pc.unique(cells[name]).to_pylist()))
        facts.append((title, f"{len(values)}: {some(values)}"))
    done = [each for each in own if each["num_seeds"]]
    if done:
        best = max(done, key=_auroc)
        facts.append(("Methods", f"{len(set(map(method_name, own))):,}"))
        section.say(
            f"Best AUROC: {_auroc(best):.3f} by {method_name(best)} on {best['data']}.", "verdict"
        )
    section.add(Facts(facts))


def _failed(section: Section, cells: pa.Table, most: int) -> None:
    failed = cells.filter(pc.not_equal(cells["status"], DONE)).to_pylist()
    if not failed:
        section.say("All cells are done.", "note")
        return
    section.say(f"Cells that failed or are not done: {len(failed):,}; the others count.", "warning")
    rows = [
        tuple(Cell(str(v or "–")) for v in (row["data"], row["test_data"], method_name(row),
                                            row["seed"], row["reason"] or row["status"]))
        for row in failed[:most]
    ]  # fmt: skip
    header = ("Data", "Test data", "Method", "Seed", "Reason")
    section.add(Table("Cells that failed", header, rows, left_out=max(0, len(failed) - most)))


def _warnings(section: Section, own: Sequence[Group], warnings: Sequence[Group]) -> None:
    """Data sets on which a single descriptor does nearly as well, as the suite words it."""
    mine = [each for each in warnings if each["data"] == each["test_data"]]
    for each in mine[:MOST_WARNINGS]:
        section.say(f"{each['data']}: {each['warning']} ({some(each['methods'])}).", "warning")
    if len(mine) > MOST_WARNINGS:
        more = len(mine) - MOST_WARNINGS
        section.say(f"{more} more such warnings are in {SUMMARY}.", "warning")
    if all(each["best_descriptor_auroc"] is None for each in own):
        section.lacks("What needs no training is not compared: the cells do not have its AUROC.")


def _not_made(section: Section, summary: Mapping[str, Any]) -> None:
    """Audits and trials of searches that failed, beside cells; summaries of old have neither."""
    for each in summary.get("failed_audits", ()):
        section.lacks(
            f"What needs no training was not scored for {each['data']} tested on "
            f"{each['test_data']}: {each['reason']}."
        )
    trials = summary.get("failed_trials", ())
    if trials:
        first = trials[0]
        section.say(
            f"Trials of searches that failed: {len(trials):,}; the first, {first['detector']} on "
            f"{first['encoder']} of {first['data']}: {first['reason']}.",
            "warning",
        )


def _warning_table(warnings: Sequence[Group], most: int) -> Table | None:
    """The warnings of cells across data sets."""
    rows = [
        (Cell(each["data"]), Cell(each["test_data"]), Cell(each["warning"]),
         Cell(some(each["methods"])))
        for each in warnings if each["data"] != each["test_data"]
    ]  # fmt: skip
    header = ("Data", "Test data", "Warning", "Methods")
    left_out = max(0, len(rows) - most)
    title = "Where a single descriptor does nearly as well"
    return Table(title, header, rows[:most], left_out=left_out) if rows else None


def _ranks(section: Section, statistics: Mapping[str, Any], most: int) -> None:
    section.add(Heading("Which methods differ?"))
    found = statistics["ranks"]
    if found is None:
        section.lacks("No method is ranked: none has all blocks.")
        for note in statistics["notes"]:
            section.say(f"{note}.", "note")
    else:
        section.add(_diagram(section, found))
        _add(section, tables.rank_table(statistics), 1, most)
    rows = [
        (
            Cell(name), Cell(block), Cell(f"{each['difference']:+.4f}", each["difference"]),
            Cell("[{:+.4f}, {:+.4f}]".format(*each["ci95"]), each["ci95"][0]),
            count(each["molecules"]),
        )
        for name, versus in statistics["versus_reference"].items()
        for block, each in versus["by_block"].items()
    ]  # fmt: skip
    if rows:
        caption = f"AUROC less that of {statistics['reference']}, block by block (paired bootstrap)"
        header = ("Method", "Block", "Difference", "95 % interval", "Molecules")
        left_out = max(0, len(rows) - most)
        section.add(Table(caption, header, rows[:most], frozenset({2, 3, 4}), left_out))


def _diagram(section: Section, found: Mapping[str, Any]) -> Charts | None:
    ranks, distance = found["average_ranks"], found["critical_difference"]
    if found["blocks"] < 2 or len(ranks) < 2:
        section.lacks(
            "There is no diagram: ranks are compared for two methods or more on two blocks or "
            f"more; there are {len(ranks)} on {found['blocks']}."
        )
        return None
    note = (
        f"Average ranks by AUROC over {found['blocks']} blocks; 1 is best. Bars join methods that "
        f"are not told apart: ranks nearer than {distance:.2f} (Nemenyi, 5 %)."
    )
    shown = dict(list(ranks.items())[:MOST_RANKED])  # the suite has them in order
    if len(shown) < len(ranks):
        note += f" The best {len(shown)} of {len(ranks)} methods are drawn."
    return Charts([rank_diagram("Critical difference", shown, distance, note)])


def _add(section: Section, found: tables.Table, texts: int, most: int) -> None:
    """A table of the suite, and its notes; its first `texts` columns are text."""
    rows = [
        [Cell(text) for text in row[:texts]] + [Cell(text, _leading(text)) for text in row[texts:]]
        for row in found.rows[:most]
    ]
    header = [(name or "method").capitalize() if i < texts else name
              for i, name in enumerate(found.header)]  # fmt: skip
    numeric = frozenset(range(texts, len(header)))
    section.add(Table(found.title, header, rows, numeric, max(0, len(found.rows) - most)))
    for note in found.notes:
        section.say(note, "note")


def _leading(text: str) -> float | None:
    """The number that a text begins with."""
    found = re.match(r"[+-]?\d[\d.]*(e[+-]?\d+)?", text)
    return float(found[0]) if found else None


def _auroc(group: Group) -> float:
    """Mean over seeds, of which one at least is done."""
    return group["metrics"]["auroc"]["mean"]


def _matrix(
    groups: Sequence[Group], row: Any, column: Any
) -> tuple[list[str], list[str], np.ndarray]:
    """Names of rows and columns, and AUROC (rows, columns), NaN where no cell is done."""
    rows, columns = (list(dict.fromkeys(map(name, groups))) for name in (row, column))
    areas = np.full((len(rows), len(columns)), np.nan)
    for each in groups:
        if each["num_seeds"]:
            areas[rows.index(row(each)), columns.index(column(each))] = _auroc(each)
    return rows, columns, areas


def _map(own: Sequence[Group]) -> Chart:
    rows, columns, areas = _matrix(own, lambda each: each["data"], method_name)
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


def _cross(section: Section, own: Sequence[Group], across: Sequence[Group], most: int) -> None:
    """Training × test sets, of the method with the best mean; all methods as a table."""
    section.add(Heading("Trained on one data set, tested on another"))
    by_method: dict[str, list[float]] = {}
    for each in across:
        if each["num_seeds"]:
            by_method.setdefault(method_name(each), []).append(_auroc(each))
    if not by_method:
        why = "all such cells failed" if across else "the suite ran without cross: true"
        section.lacks(f"No cell was tested on another data set than its own: {why}.")
        return
    best = max(by_method, key=lambda name: float(np.mean(by_method[name])))
    mine = [each for each in (*own, *across) if method_name(each) == best]
    rows, columns, areas = _matrix(mine, lambda each: each["data"], lambda each: each["test_data"])
    drawn = heat_map(
        f"AUROC of {best}: training set (rows) by test set", rows, columns, areas,
        value_name="AUROC", reach=REACH, note="The method with the best mean over all pairs.",
    )  # fmt: skip
    section.add(Charts([drawn]), method_table(across, "All pairs and methods", most, cross=True))
