"""Scores judged by measured values: do they find the errors, do intervals hold?"""

from __future__ import annotations

from typing import Any

from pipeline.report.blocks import Cell, Section, Table, number
from pipeline.report.reading import Folder
from pipeline.report.settings import ReportSettings
from pipeline.trust.run import HEADINGS

NAMES = {
    "given": "the table's own", "constant": "nothing (constant)",
    "oracle": "oracle (the errors themselves)",
}  # fmt: skip


def trust_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.trust left."""
    results = folder.json("trust.json")
    section = Section("Does it hold? Scores judged by measured values", folder.place)
    left = ", ".join(f"{n:,} with {why}" for why, n in results["left_out"].items())
    section.say(
        f"RMSE {results['rmse']:.3f} of {results['molecules']:,} of {results['rows']:,} rows of "
        f"{results['data_file']}" + (f"; left out: {left}." if left else "."),
        "verdict",
    )
    for warning in results["warnings"]:
        section.say(f"{warning}.", "warning")
    for note in results["notes"]:
        section.say(f"{note}.", "note")
    by = results.get("domain_by")
    section.say(
        f"{results['in_domain']:,} molecules are in domain, by {by}." if by
        else "Nothing tells which molecules are out of domain: all count as in domain.",
        "note",
    )  # fmt: skip
    section.add(_scores(results["scores"]), *_intervals(section, results))
    section.say("The retention curve is in retention.png beside trust.json.")
    return section


def _scores(scores: dict[str, Any]) -> Table:
    def cell(found: dict[str, Any], key: str) -> Cell:
        low, high = found.get(f"{key}_ci95") or (found[key], found[key])
        interval = "" if low == high else f" [{low:.3f}, {high:.3f}]"
        return Cell(f"{found[key]:.3f}{interval}", found[key])

    rows = [
        (Cell(NAMES.get(name, name)), *(cell(found, key) for key in HEADINGS))
        for name, found in scores.items()
    ]
    return Table(
        "Does the score find the errors? (95 % intervals over molecules)",
        ("Score", *HEADINGS.values()), rows, frozenset(range(1, len(HEADINGS) + 1)),
    )  # fmt: skip


def _intervals(section: Section, results: dict[str, Any]) -> list[Table]:
    rows = []
    for name, found in (results.get("intervals") or {}).items():
        if "not_made" in found:
            section.lacks(f"Intervals scaled by {name} are not made: {found['not_made']}.")
            continue
        cells = [Cell(NAMES.get(name, name))]
        for where in ("in_domain", "out_of_domain"):
            held = found.get(where) or {}
            cells += [number(held.get("coverage")), number(held.get("width"))]
        rows.append(tuple(cells))
    if not rows:
        section.lacks("No intervals were judged.")
        return []
    held = 100 * (1 - results["interval_alpha"])
    return [
        Table(
            f"Intervals that should hold {held:.0f} %",
            ("Scaled by", "Held in domain", "Mean width", "Held out of domain", "Mean width"),
            rows, frozenset({1, 2, 3, 4}),
        )
    ]  # fmt: skip
