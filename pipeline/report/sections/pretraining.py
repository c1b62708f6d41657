"""A pretraining: its losses over the steps."""

from __future__ import annotations

from pipeline.report.blocks import Charts, Section
from pipeline.report.figures.curves import numbers_of
from pipeline.report.figures.plot import Plot
from pipeline.report.reading import Folder
from pipeline.report.rejections import add_rejected
from pipeline.report.settings import ReportSettings

CURVES = {
    "loss": ("Loss", "Loss"),
    "accuracy": ("Hidden atom types or residues told", "Share"),
    "coord": ("Coordinates", "Smooth L1"),
    "distance": ("Distances, scaled", "Smooth L1"),
}
KINDS = {"train": ("frozen", "dashed", "training"), "heldout": ("inside", "line", "held out")}


def pretraining_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.pretrain left."""
    section = Section("Pretraining", folder.place)
    steps = numbers_of(folder.records("pretraining_curves.csv"))
    last = next((step for step in reversed(steps) if "heldout_loss" in step), None)
    if last is None:
        section.lacks("There are no held-out losses yet.")
        return section
    section.say(f"Held-out loss {last['heldout_loss']:.3f} at step {last['step']:,.0f}.", "verdict")
    charts = []
    for name, (title, unit) in CURVES.items():
        plot = Plot(title, "Step", unit, whole_x=True)
        for kind, (color, form, label) in KINDS.items():
            told = [step for step in steps if f"{kind}_{name}" in step]
            values = [step[f"{kind}_{name}"] for step in told]
            plot.line([step["step"] for step in told], values, color, label, form)
        if plot.marks:
            charts.append(plot.chart())
    section.add(Charts(charts))
    add_rejected(section, folder, "rejected.parquet", settings.table_rows)
    return section
