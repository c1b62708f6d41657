"""A scored library, or a screen: the verdict, the scores, where they lie, both ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.kinds import SEQUENCE
from pipeline.report.blocks import Chart, Charts, Facts, Heading, Molecules, Section
from pipeline.report.figures.chemical_map import chemical_map
from pipeline.report.figures.curves import p_value_chart
from pipeline.report.figures.drawn import beside_nearest
from pipeline.report.figures.plot import histogram
from pipeline.report.figures.scaffolds import scaffold_table
from pipeline.report.reading import Folder
from pipeline.report.rejections import add_rejected
from pipeline.report.scored import Scored, read_scored
from pipeline.report.settings import ReportSettings
from pipeline.runtime.errors import InputError
from pipeline.scoring.output.beside import KEPT, different
from pipeline.scoring.steps import REJECTED_FOLDER
from pipeline.scoring.verdict_text import verdict_lines

MOLECULES = "training_molecules.parquet"
CHECKPOINT = "training/checkpoint"  # of a screen
STORED = 5  # of a sample's molecules of each kind are these times drawn for the map


def library_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.score or jobs.screen left."""
    summary, verdict = folder.json("run_summary.json"), folder.json("verdict.json")
    checkpoint = _checkpoint(folder, summary)
    two_scales = bool(checkpoint.json("config.json").get("cross"))
    most = max(settings.scaffold_molecules, settings.map_molecules * STORED)
    by = "p_value" if two_scales else "energy"
    scored = read_scored(folder, most, settings.seed, by)
    section = Section("Screened library" if verdict else "Scored library", folder.place)
    if scored.rows:
        _verdict(section, scored, summary, verdict, two_scales)
        _charts(section, scored, summary, two_scales)
        _map(section, scored, checkpoint, settings)
        _ends(section, scored, settings.molecules)
        _scaffolds(section, scored, settings)
    else:
        _nothing_new(section, scored, summary)
    section.add(Heading("Rejected rows"))
    add_rejected(section, folder, REJECTED_FOLDER, settings.table_rows, summary.get("rejected"))
    return section


def _nothing_new(section: Section, scored: Scored, summary: dict[str, Any]) -> None:
    """Where no row was scored, or training molecules alone."""
    if scored.in_training:
        told = f"All {scored.in_training:,} molecules that were scored are in the training set."
    elif "rows_in" in summary:
        told = f"0 of {summary['rows_in']:,} rows could be scored."
    else:
        told = "There are no scores, and no run_summary.json that counts rows."
    section.lead.append(told)
    section.say("Nothing is shown of scores: there is no molecule that is new.", "lacks")


def _verdict(
    section: Section, scored: Scored, summary: dict[str, Any], verdict: dict[str, Any],
    two_scales: bool,
) -> None:  # fmt: skip
    outside, known = int(scored.is_ood.sum()), scored.in_training
    new = "molecules that are not in the training set" if known else "molecules"
    told = f"{outside:,} of {scored.rows:,} {new} ({100 * outside / scored.rows:.1f} %) are OOD"
    threshold = summary.get("energy_threshold")
    one_threshold = not two_scales and threshold is not None and np.isfinite(threshold)
    if threshold is not None:
        above = f"energy above {threshold:.3f}, " if one_threshold else ""
        told += (
            f": p ≤ {summary['alpha']:g}, {above}by {summary['calibration_molecules']:,} ID "
            "molecules"
        )
    section.lead.append(f"{told}.")
    if threshold is None:
        section.lacks(
            "The threshold is not told: run_summary.json does not have it (has the run ended?)."
        )
    elif np.isinf(threshold):
        section.say(
            f"With {summary['calibration_molecules']:,} molecules that calibrate, no p-value can "
            f"be {summary['alpha']:g} or less: no molecule can be found OOD.", "warning",
        )  # fmt: skip
    if scored.missing:
        section.lacks(
            "These scores are of an earlier version, which did not write "
            f"{', '.join(scored.missing)}; score again to have them here."
        )
    if two_scales:
        section.say(
            "The training took its OOD molecules from this library. These are judged by a second "
            "detector that had not seen them, with energies on a scale of its own: compare "
            "p-values, not energies.", "warning",
        )  # fmt: skip
    for line in verdict_lines(verdict) if verdict else []:
        section.say(line, "warning" if line.startswith("the line between") else "text")
    if summary.get("calibrated_by") == "id_val":
        section.say(
            "The p-values go by validation molecules, which chose the epoch: they are a little "
            "small.", "warning",
        )  # fmt: skip
    if known:
        section.say(
            f"{known:,} molecules of the training set are left out of all counts, figures and "
            "tables below.", "note",
        )  # fmt: skip
    facts = [("Scored", f"{scored.rows + known:,}"), ("OOD", f"{outside:,}")]
    facts += [("In the training set", f"{known:,}")]
    names = {"detector": "Detector", "encoder": "Encoder", "weights": "Weights", "dataset": "Data"}
    facts += [(title, str(summary[key])) for key, title in names.items() if summary.get(key)]
    if structures := {k: n for k, n in (summary.get("structures") or {}).items() if n}:
        facts.append(("Structures", ", ".join(f"{k} {n:,}" for k, n in structures.items())))
    section.add(Facts(facts))


def _charts(section: Section, scored: Scored, summary: dict[str, Any], two_scales: bool) -> None:
    ood = scored.is_ood
    charts = []

    def of(name: str, title: str, label: str) -> None:
        values = scored.numbers[name]
        groups = [("inside", "inside", values[~ood]), ("outside", "outside", values[ood])]
        plot, note = histogram(title, label, groups, shares=False)
        if name == "energy" and summary.get("energy_threshold") is not None:
            told = f"threshold at p = {summary['alpha']:g}"
            told += " of molecules that training did not use" if two_scales else ""
            plot.rule(summary["energy_threshold"], told)
        charts.append(plot.chart(note))

    of("energy", "Energies of the library", "Energy (higher: more OOD)")
    if scored.has("p_value"):
        charts.append(_p_values(scored.numbers["p_value"]))
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


def _p_values(values: np.ndarray) -> Chart:
    # Storey's estimate: p-values above one half come from molecules like the calibration's
    alike = min(1.0, 2 * float((values[np.isfinite(values)] > 0.5).mean()))
    return p_value_chart(
        "p-values of the library", [("library", "inside", values)],
        "If all were like the calibration molecules, the line would follow the diagonal; what lies "
        "above it on the left is the excess of unlike ones. By p-values above 0.5, about "
        f"{100 * alike:.0f} % of the library is like them (Storey's estimate).",
    )  # fmt: skip


def _map(section: Section, scored: Scored, checkpoint: Folder, settings: ReportSettings) -> None:
    section.add(Heading("Chemical space"))
    training = _training(section, checkpoint)
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
    outside = int(scored.is_ood.sum())
    for kind, flag, total in (
        ("library, inside", False, scored.rows - outside), ("library, outside", True, outside),
    ):  # fmt: skip
        take(kind, scored.sample.filter(pc.equal(scored.sample["is_ood"], flag)), total)
    shown = {k: v for k, v in kinds.items() if v}
    chart = chemical_map(shown, totals, settings.seed, scored.kind)
    if chart is None:
        section.lacks("There is no map: too few molecules, or all are alike.")
    else:
        section.add(Charts([chart]))


def _some(table: pa.Table, most: int, rng: np.random.Generator) -> pa.Table:
    """At most so many rows, drawn at random, in their order."""
    size = min(table.num_rows, most)
    return table.take(pa.array(np.sort(rng.choice(table.num_rows, size, replace=False))))


def _scaffolds(section: Section, scored: Scored, settings: ReportSettings) -> None:
    if scored.kind == SEQUENCE:
        section.lacks("Scaffolds are not counted: sequences have none.")
        return
    rows = _some(scored.sample, settings.scaffold_molecules, np.random.default_rng(settings.seed))
    table = scaffold_table(
        rows["smiles"].to_pylist(), rows["is_ood"].to_numpy(zero_copy_only=False).astype(bool),
        rows["energy"].to_numpy(), scored.rows,
    )  # fmt: skip
    section.add(Heading("Scaffolds"), table)
    if table is None:
        section.lacks("No scaffold occurs twice, so none has a share.")


def _checkpoint(folder: Folder, summary: dict[str, Any]) -> Folder:
    """A screen's own checkpoint, or that of the summary; it may not be there."""
    place, own = summary.get("checkpoint"), folder.below(CHECKPOINT)
    return own if own.has(MOLECULES) or not place else Folder(str(place))


def _training(section: Section, checkpoint: Folder) -> pa.Table | None:
    """Molecules of the training; None, and why, where they are not to be found."""
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
    if most > KEPT:
        section.say(f"At most {KEPT} molecules are kept at either end of a library.", "note")
    titles = {  # of the greatest and of the least values
        "energy": ("Most OOD: highest energies", "Least OOD: lowest energies"),
        "p_value": (
            "Least OOD: highest p-values (equal ones by id)",
            "Most OOD: lowest p-values (equal ones by id)",
        ),
        "expected_error": ("Do not trust these", "Trust these first"),
    }
    for by, (least, greatest) in scored.ends.ends.items():
        for title, end in zip(titles[by], (greatest, least)):
            rows = different(end.to_pylist(), most)
            if rows:
                groups = [beside_nearest(row, by, scored.kind) for row in rows]
                section.add(Molecules(title, groups, note))
                note = ""
