"""A generator of peptides: what it learned, and its peptides beside real, shuffled and random."""

from __future__ import annotations

from typing import Any

from pipeline.peptides.controls import MEASURES, told_verdict
from pipeline.report.blocks import Cell, Chart, Charts, Facts, Section, Table, count, number
from pipeline.report.figures.curves import numbers_of
from pipeline.report.figures.plot import Plot
from pipeline.report.reading import Folder
from pipeline.report.sections.generation import CURVES
from pipeline.report.settings import ReportSettings

LEVELS = {"0": ("inside", "line"), "0.25": ("frozen", "dashed"), "0.5": ("outside", "dotted"),
          "1": ("ood", "thin")}  # fmt: skip
COUNTS = {"peptides": "Drawn", "valid": "Valid", "different": "Different",
          "copies_of_training": "Copies of training"}  # fmt: skip
COLLAPSED = 0.99  # uniqueness below which a generator repeats itself


def peptides_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.generate_peptides left."""
    summary = folder.json("peptides_summary.json")
    made, section = summary["generator"], Section("Generated peptides", folder.place)
    best, drawn = made["at_best_step"], summary["peptides"]
    told = ", ".join(
        f"{each['different']:,} different of {each['peptides']:,} of class {name}"
        for name, each in drawn.items()
    )
    section.say(f"Peptides drawn: {told}.", "verdict")
    for name, nearer in summary["nearer_than_controls"].items():
        line = told_verdict(name, nearer)
        section.say(f"{line[0].upper()}{line[1:]}.", "verdict" if all(nearer.values()) else "note")
    if any(each["uniqueness"] < COLLAPSED for each in drawn.values()):
        section.say("The generator repeats itself: see how many peptides differ.", "warning")
    if not made["better_than_linear"]:
        section.say(
            "The generator learned no more than a Gaussian of each class's residues knows: loss "
            f"on held-out peptides {best['heldout_loss']:.4f}, the best linear guess "
            f"{best['linear_loss']:.4f}.",
            "warning",
        )
    section.add(
        Facts(
            [
                ("Latents", f"{summary['latents']}, {made['latent_columns']:,} columns a residue"),
                ("Rows", f"{summary['rows_used']:,} of {summary['rows_in']:,} used"),
                ("Held out", summary["held_out"]),
                ("Step", f"{made['best_step']:,}, of the least held-out loss"),
                ("Waited for data", f"{100 * made['waiting_share']:.1f} % of the time"),
            ]
        ),
        Charts(_charts(folder)),
        _counts(drawn),
        *(_measures(name, found) for name, found in summary["measures"].items()),
    )
    if summary["macrel"] != "made":
        section.say(f"Macrel's probabilities: {summary['macrel']}.", "note")
    section.say(f"{summary['rejected']:,} rows were rejected; rejected.parquet says why.", "note")
    return section


def _charts(folder: Folder) -> list[Chart]:
    lines = numbers_of(folder.records("peptide_curves.csv"))
    steps = [line["step"] for line in lines]
    learning = Plot("Learning", "Step of training", "Mean squared error", whole_x=True)
    for name, (color, form, label) in CURVES.items():
        learning.line(steps, [line[f"{name}_loss"] for line in lines], color, label, form)
    decoder = Plot("Residues told right", "Step of training", "Share", whole_x=True)
    for level, (color, form) in LEVELS.items():
        right = [line[f"decoder_right_{level}"] for line in lines]
        decoder.line(steps, right, color, f"noise of {level} deviations", form)
    return [learning.chart(), decoder.chart()]


def _counts(drawn: dict[str, dict[str, Any]]) -> Table:
    rows = [(Cell(name), *(count(each[key]) for key in COUNTS)) for name, each in drawn.items()]
    return Table("What was drawn", ("Class", *COUNTS.values()), rows,
                 frozenset(range(1, len(COUNTS) + 1)))  # fmt: skip


def _measures(name: str, found: dict[str, dict[str, Any]]) -> Table:
    first = next(iter(found.values()))
    titles = {"uniqueness": "uniqueness", "novelty": "novelty", **MEASURES}
    shown = {key: title[0].upper() + title[1:] for key, title in titles.items() if key in first}
    rows = [(Cell(sample), *(number(each[key]) for key in shown)) for sample, each in found.items()]
    return Table(
        f"Class {name}: {first['rows']:,} peptides each",
        ("Peptides", *shown.values()), rows, frozenset(range(1, len(shown) + 1)),
    )  # fmt: skip
