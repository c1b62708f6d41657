"""A generator of features: what it learned, what became of its candidates, what they are worth."""

from __future__ import annotations

from typing import Any

from pipeline.report.blocks import Cell, Chart, Charts, Facts, Section, Table, count, number
from pipeline.report.figures.curves import numbers_of
from pipeline.report.figures.plot import Plot
from pipeline.report.reading import Folder
from pipeline.report.rejections import add_rejected
from pipeline.report.settings import ReportSettings

CURVES = {
    "train": ("frozen", "dotted", "training"), "heldout": ("inside", "line", "held out"),
    "linear": ("outside", "dashed", "best linear guess"), "zero": ("ood", "thin", "zero"),
}  # fmt: skip
BY_STEP = {"model": CURVES["heldout"], "linear": CURVES["linear"], "zero": CURVES["zero"]}
COUNTS = {
    "asked": "Asked", "returned": "Returned", "shortfall": "Missing", "candidates": "Candidates",
    "below_threshold": "Below threshold", "copies_refused": "Copies",
    "passing_not_needed": "Not needed",
}  # fmt: skip
MEASURES = {
    "precision": "Precision", "recall": "Recall", "density": "Density", "coverage": "Coverage",
    "told_apart_auroc": "Told apart (AUROC)",
}  # fmt: skip


def generation_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.generate left."""
    summary = folder.json("generation_summary.json")
    made, section = summary["generator"], Section("Generated features", folder.place)
    drawn = {name: each for name, each in summary["classes"].items() if each["asked"]}
    told = ", ".join(
        f"{each['returned']:,} of {each['asked']:,} of class {name}" for name, each in drawn.items()
    )
    section.say(f"Samples returned: {told}.", "verdict")
    if any(each["shortfall"] for each in drawn.values()):
        section.say("Too few candidates were good enough; none was filled in.", "warning")
    losses = made["losses"]
    if not made["better_than_linear"]:
        section.say(
            f"The generator learned no more than a Gaussian of each class knows: loss on new rows "
            f"{losses['model']:.4f}, the best linear guess {losses['linear']:.4f}.",
            "warning",
        )
    section.add(
        Facts(
            [
                ("Features", f"{summary['features']}, {summary['columns']:,} columns"),
                ("Rows", f"{summary['rows_used']:,} of {summary['rows_in']:,} used"),
                ("Learned", f"{made['learned_columns']:,} columns, "
                            f"{100 * made['variance_kept']:.1f} % of the variance"),
                ("Step", f"{made['best_step']:,}, of the least held-out loss"),
            ]
        ),
        Charts([_learning(folder), _by_step(made["loss_by_time"])]),
        _counts(drawn),
        *(_measures(name, found) for name, found in summary["measures"].items()),
    )  # fmt: skip
    section.say("Maps of real and generated features are in map.png, their quality in quality.png.")
    add_rejected(section, folder, "rejected.parquet", settings.table_rows)
    return section


def _learning(folder: Folder) -> Chart:
    steps = numbers_of(folder.records("generator_curves.csv"))
    plot = Plot("Learning", "Step of training", "Mean squared error", whole_x=True)
    for name, (color, form, label) in CURVES.items():
        losses = [step[f"{name}_loss"] for step in steps]
        plot.line([step["step"] for step in steps], losses, color, label, form)
    return plot.chart()


def _by_step(lines: list[dict[str, float]]) -> Chart:
    plot = Plot("Held-out rows by diffusion step", "Step (0: hardly any noise)", "Squared error")
    middles = [(line["from_step"] + line["to_step"]) / 2 for line in lines]
    for name, (color, form, label) in BY_STEP.items():
        plot.line(middles, [line[f"{name}_loss"] for line in lines], color, label, form)
    return plot.chart()


def _counts(drawn: dict[str, dict[str, int]]) -> Table:
    rows = [(Cell(name), *(count(each[key]) for key in COUNTS)) for name, each in drawn.items()]
    return Table("What became of the candidates", ("Class", *COUNTS.values()), rows,
                 frozenset(range(1, len(COUNTS) + 1)))  # fmt: skip


def _measures(name: str, found: dict[str, dict[str, Any] | None]) -> Table:
    rows = [
        (Cell(sample), *(number((each or {}).get(key)) for key in MEASURES))
        for sample, each in found.items()
    ]
    sizes = [each["rows"] for each in found.values() if each]
    of = f"{sizes[0]:,} rows each" if sizes else "too few held-out rows to compare"
    return Table(
        f"Class {name}: samples against held-out real rows ({of})",
        ("Sample", *MEASURES.values()), rows, frozenset(range(1, len(MEASURES) + 1)),
    )  # fmt: skip
