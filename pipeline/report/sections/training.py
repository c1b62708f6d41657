"""A training: its curves, pairs and margins, and what validation said."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.report.blocks import Cell, Chart, Charts, Facts, Heading, Section, Table, number
from pipeline.report.figures.curves import dynamics_charts, numbers_of
from pipeline.report.figures.plot import Plot
from pipeline.report.reading import Folder
from pipeline.report.rejections import add_rejected
from pipeline.report.settings import ReportSettings

DYNAMICS = "training_dynamics.csv"


def training_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.train left."""
    stats = folder.json("training_stats.json")
    section = Section("Training", folder.place)
    told = f"{stats.get('detector', 'detector')}: validation AUROC {stats['best_val_auroc']:.3f}"
    if "best_epoch" in stats:
        told += f", at epoch {stats['best_epoch']} of {stats.get('epochs', '?')}"
    section.say(f"{told}.", "verdict")
    section.add(Facts(_facts(stats)))
    audit = stats.get("audit") or {}
    if audit.get("warning"):
        section.say(f"{audit['warning']} (validation molecules).", "warning")
    if chosen := stats.get("chosen_by_validation_auroc"):
        rows = [(Cell(name), number(area)) for name, area in
                sorted(chosen.items(), key=lambda each: -each[1])]  # fmt: skip
        caption = "Detectors that were tried, by validation AUROC"
        section.add(Table(caption, ("Detector", "Validation AUROC"), rows, frozenset({1})))
    for name, why in (stats.get("left_out") or {}).items():
        section.say(f"{name} could not be fitted: {why}.", "warning")
    _curves(section, folder, stats)
    section.add(Heading("Rejected rows"))
    add_rejected(section, folder, "rejected.parquet", settings.table_rows)
    return section


def _facts(stats: dict[str, Any]) -> list[tuple[str, str]]:
    names = {
        "encoder": "Encoder", "weights": "Weights", "dataset": "Data", "seed": "Seed",
        "device": "Device", "trained_parameters": "Trained parameters",
    }  # fmt: skip
    facts = [(title, _told(stats[key])) for key, title in names.items() if key in stats]
    if stats.get("views"):
        facts.append(("Views", ", ".join(stats["views"])))
    roles = {
        "id_train": "ID to train", "ood_train": "OOD to train", "id_val": "ID to validate",
        "ood_val": "OOD to validate", "id_cal": "ID to calibrate",
    }  # fmt: skip
    molecules = stats.get("molecules") or {}
    facts += [(title, f"{molecules[key]:,}") for key, title in roles.items() if key in molecules]
    made = stats.get("synthetic_ood") or {}
    facts += [(f"Synthetic OOD features to {verb}", f"{made[part]:,}") for part, verb in
              (("train", "train"), ("validation", "validate")) if part in made]  # fmt: skip
    for key, title in (("encoding_time_seconds", "Encoding"), ("train_time_seconds", "Training"),
                       ("eval_time_seconds", "Validation")):  # fmt: skip
        if key in stats:
            facts.append((f"{title}, s", f"{stats[key]:.2f}"))
    peaks = [stats[key] for key in stats if key.startswith("peak_resident_memory")]
    if peaks:
        facts.append(("Peak resident memory, GiB", f"{max(peaks):.2f}"))
    return facts


def _told(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _curves(section: Section, folder: Folder, stats: dict[str, Any]) -> None:
    section.add(Heading("Curves"))
    epochs = numbers_of(folder.records(DYNAMICS))
    if not epochs:
        why = "is fitted at once" if "epochs" not in stats else f"has left no {DYNAMICS}"
        section.lacks(f"There are no curves: this detector {why}.")
        return
    charts = dynamics_charts([(None, "inside", "line", epochs)])
    weights = _hard_pairs(folder, stats, epochs)
    section.add(Charts([*charts, *([weights] if weights else [])]))
    if weights is None:
        section.lacks(
            "Weights of hard pairs are not shown: only Energy-DPO (dpo) weighs pairs by how wrong "
            "they stand."
        )


def _hard_pairs(
    folder: Folder, stats: dict[str, Any], epochs: list[dict[str, float]]
) -> Chart | None:
    """DPO's weight of a pair at the mean margin, σ(−β Δ); None for other losses."""
    beta = (folder.json("checkpoint/config.json").get("settings") or {}).get("dpo_beta")
    told = [epoch for epoch in epochs if "mean_margin" in epoch]
    if stats.get("detector") != "dpo" or beta is None or not told:
        return None
    from scipy.special import expit  # slow to import

    x = [epoch["epoch"] for epoch in told]
    margins = np.array([epoch["mean_margin"] for epoch in told])
    plot = Plot("Weight of pairs in the loss", "Epoch", "σ(−β · margin)", whole_x=True)
    plot.line(x, expit(-beta * margins), "inside", "a pair at the mean margin")
    plot.line(x, np.full(len(x), 0.5), "ink", "a pair on the boundary", "dotted")
    return plot.chart(
        f"How hard Energy-DPO pulls at a pair (β = {beta:g}): misranked pairs weigh more than one "
        "half, pairs that stand well apart next to nothing."
    )
