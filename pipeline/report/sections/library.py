"""A scored library, or a screen: the verdict, the scores, where they lie, both ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.blocks import Charts, Facts, Heading, Molecules, Section
from pipeline.report.chemical_map import chemical_map
from pipeline.report.curves import p_value_chart
from pipeline.report.drawn import beside_nearest
from pipeline.report.plot import histogram
from pipeline.report.reading import Folder
from pipeline.report.rejections import add_rejected
from pipeline.report.scaffolds import scaffold_table
from pipeline.report.scored import Scored, read_scored
from pipeline.report.settings import ReportSettings
from pipeline.runtime.errors import InputError
from pipeline.scoring.beside import different
from pipeline.scoring.steps import REJECTED_FOLDER
from pipeline.scoring.verdict_text import verdict_lines

MOLECULES = "training_molecules.parquet"
CHECKPOINT = "training/checkpoint"  # of a screen
STORED = 5  # of a sample's molecules of each kind are these times drawn for the map


def library_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.score or jobs.screen left."""
    summary, verdict = folder.json("run_summary.json"), folder.json("verdict.json")
    most = max(settings.scaffold_molecules, settings.map_molecules * STORED)
    scored = read_scored(folder, most, settings.seed)
    section = Section("Screened library" if verdict else "Scored library", folder.place)
    _verdict(section, scored, summary, verdict)
    if scored.missing:
        section.lacks(
            "These scores are of an earlier version, which did not write "
            f"{', '.join(scored.missing)}; score again to have them here."
        )
    _charts(section, scored, summary)
    _map(section, scored, folder, summary, settings)
    _ends(section, scored, settings.molecules)
    rng = np.random.default_rng(settings.seed)
    rows = _some(scored.sample, settings.scaffold_molecules, rng)
    table = scaffold_table(
        rows["smiles"].to_pylist(), rows["is_ood"].to_numpy(zero_copy_only=False).astype(bool),
        rows["energy"].to_numpy(), scored.rows,
    )  # fmt: skip
    section.add(Heading("Scaffolds"), table)
    if table is None:
        section.lacks("No scaffold occurs twice, so none has a share.")
    section.add(Heading("Rejected rows"))
    add_rejected(section, folder, REJECTED_FOLDER, settings.table_rows)
    return section


def _verdict(
    section: Section, scored: Scored, summary: dict[str, Any], verdict: dict[str, Any]
) -> None:
    outside = int(scored.flags["is_ood"].sum())
    told = f"{outside:,} of {scored.rows:,} molecules ({100 * outside / scored.rows:.1f} %) are OOD"
    threshold = summary.get("energy_threshold")
    if threshold is not None:
        told += (
            f": p ≤ {summary['alpha']:g}, energy above {threshold:.3f}, by "
            f"{summary['calibration_molecules']:,} ID molecules"
        )
    section.lead.append(f"{told}.")
    if threshold is None:
        section.lacks(
            "The threshold is not told: run_summary.json does not have it (has the run ended?)."
        )
    for line in verdict_lines(verdict) if verdict else []:
        section.say(line, "warning" if line.startswith("the line between") else "text")
    if summary.get("calibrated_by") == "id_val":
        section.say(
            "The p-values go by validation molecules, which chose the epoch: they are a little "
            "small.", "warning",
        )  # fmt: skip
    facts = [("Scored", f"{scored.rows:,}"), ("OOD", f"{outside:,}")]
    facts += [("In the training set", f"{int(scored.flags['in_training'].sum()):,}")]
    names = {"detector": "Detector", "encoder": "Encoder", "weights": "Weights", "dataset": "Data"}
    facts += [(title, str(summary[key])) for key, title in names.items() if summary.get(key)]
    if structures := {k: n for k, n in (summary.get("structures") or {}).items() if n}:
        facts.append(("Structures", ", ".join(f"{k} {n:,}" for k, n in structures.items())))
    section.add(Facts(facts))


def _charts(section: Section, scored: Scored, summary: dict[str, Any]) -> None:
    ood = scored.flags["is_ood"]
    charts = []

    def of(name: str, title: str, label: str) -> None:
        values = scored.numbers[name]
        groups = [("inside", "inside", values[~ood]), ("outside", "outside", values[ood])]
        plot, note = histogram(title, label, groups, shares=False)
        if name == "energy" and summary.get("energy_threshold") is not None:
            plot.rule(summary["energy_threshold"], f"threshold at p = {summary['alpha']:g}")
        charts.append(plot.chart(note))

    of("energy", "Energies of the library", "Energy (higher: more OOD)")
    if scored.has("p_value"):
        charts.append(_p_values(scored))
    else:
        section.lacks("Calibration is not shown: the scores have no p-values.")
    if scored.has("nearest_similarity"):
        of("nearest_similarity", "Likeness to the training set", "Tanimoto, nearest molecule")
    if scored.has("expected_error"):
        of("expected_error", "Expected errors", "Expected error (unit of the label)")
    else:
        section.lacks(
            "Expected errors are not shown: the training set came without labels, so there is no "
            "error model."
        )
    section.add(Heading("Scores"), Charts(charts))


def _p_values(scored: Scored) -> Any:
    new = ~scored.flags["in_training"]
    values = scored.numbers["p_value"][new]
    # Storey's estimate: p-values above one half come from molecules like the calibration's
    alike = min(1.0, 2 * float((values > 0.5).mean())) if len(values) else float("nan")
    return p_value_chart(
        "p-values of the library", [("library", "inside", values)],
        "If all were like the calibration molecules, the line would follow the diagonal; what lies "
        "above it on the left is the excess of unlike ones. By p-values above 0.5, about "
        f"{100 * alike:.0f} % of the library is like them (Storey's estimate).",
    )  # fmt: skip


def _map(
    section: Section, scored: Scored, folder: Folder, summary: dict[str, Any],
    settings: ReportSettings,
) -> None:  # fmt: skip
    section.add(Heading("Chemical space"))
    training = _training(section, folder, summary)
    rng = np.random.default_rng(settings.seed)
    kinds: dict[str, list[str]] = {}
    totals: dict[str, int] = {}

    def take(kind: str, molecules: pa.Table, total: int) -> None:
        some = _some(molecules, settings.map_molecules, rng)
        kinds[kind], totals[kind] = some["smiles"].to_pylist(), total

    # the larger cloud first, so that it does not hide the other
    for kind, prefix in (("OOD, training", "ood"), ("ID, training", "id")):
        if training is not None:
            rows = training.filter(pc.starts_with(training["role"], prefix))
            take(kind, rows, rows.num_rows)
    outside = int(scored.flags["is_ood"].sum())
    for kind, flag, total in (
        ("library, inside", False, scored.rows - outside), ("library, outside", True, outside),
    ):  # fmt: skip
        take(kind, scored.sample.filter(pc.equal(scored.sample["is_ood"], flag)), total)
    chart = chemical_map({k: v for k, v in kinds.items() if v}, totals, settings.seed)
    if chart is None:
        section.lacks("There is no map: too few molecules.")
    else:
        section.add(Charts([chart]))


def _some(table: pa.Table, most: int, rng: np.random.Generator) -> pa.Table:
    """At most so many rows, drawn at random, in their order."""
    size = min(table.num_rows, most)
    return table.take(pa.array(np.sort(rng.choice(table.num_rows, size, replace=False))))


def _training(section: Section, folder: Folder, summary: dict[str, Any]) -> pa.Table | None:
    """Molecules of the training; None, and why, where they are not to be found."""
    place = summary.get("checkpoint")
    own = folder.below(CHECKPOINT)
    checkpoint = own if own.has(MOLECULES) else Folder(str(place)) if place else own
    if not checkpoint.has(MOLECULES):
        section.lacks(
            f"The map has the library alone: the training molecules are not at {checkpoint.uri}."
        )
        return None
    try:
        found = checkpoint.parquet(MOLECULES, ["smiles", "role"])
    except InputError as error:
        section.lacks(f"The map has the library alone: {error}.")
        return None
    if "smiles" not in found.column_names:
        section.lacks(
            "The map has the library alone: the checkpoint is of an earlier version, which did "
            "not keep the SMILES of its training molecules."
        )
        return None
    return found


def _ends(section: Section, scored: Scored, most: int) -> None:
    section.add(Heading("Both ends"))
    if not most:
        section.say("No molecules are drawn (--molecules 0).")
        return
    note = (
        "Left a molecule of the library, right the training molecule nearest to it. No training "
        "molecule stands twice in a list; molecules of the training set are left out."
    )
    titles = {
        "energy": ("Least OOD: lowest energies", "Most OOD: highest energies"),
        "expected_error": ("Trust these first", "Do not trust these"),
    }
    for by in ("energy", "expected_error"):
        for title, end in reversed(list(zip(titles[by], scored.ends.ends[by]))):
            rows = different(end.to_pylist(), most)
            if rows:
                section.add(Molecules(title, [beside_nearest(row, by) for row in rows], note))
                note = ""
