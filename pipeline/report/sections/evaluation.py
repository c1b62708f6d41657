"""An evaluation: metrics, energies, curves, p-values, domains, the worst mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.audit import RIVALS, rival_name
from pipeline.molecules.kinds import Kind, kind_of_columns, unnamed
from pipeline.report.blocks import Cell, Charts, Facts, Heading, Molecules, Section, Table, count
from pipeline.report.blocks import number as number_cell
from pipeline.report.figures.curves import p_value_chart, precision_chart, roc_chart
from pipeline.report.figures.drawn import drawn
from pipeline.report.figures.plot import histogram
from pipeline.report.placements import leave_one_out_p_values, placements
from pipeline.report.reading import Folder
from pipeline.report.rejections import add_rejected
from pipeline.report.settings import ReportSettings

TITLES = {
    "auroc": "AUROC", "aupr": "AUPR, OOD positive", "aupr_id_positive": "AUPR, ID positive",
    "fpr95": "FPR at 95 % TPR, OOD positive", "fpr95_id_positive": "FPR at 95 % TPR, ID positive",
}  # fmt: skip
PREDICTIONS = "detailed_predictions.csv"


def evaluation_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.evaluate left."""
    results = folder.json("ood_evaluation_results.json")
    section = Section("Evaluation", folder.place)
    told = (
        f"AUROC {results['auroc']:.3f} on {results['id_molecules']:,} ID and "
        f"{results['ood_molecules']:,} OOD test molecules"
    )
    section.say(f"{told}.", "verdict")
    section.add(Facts(_facts(results)))
    _rivals(section, results.get("audit"))
    if folder.has(PREDICTIONS):
        table = folder.columns(PREDICTIONS)
        kind = kind_of_columns(table.column_names)
        _predictions(section, unnamed(table), results.get("p_values"), settings, kind)
    else:
        section.lacks(f"Curves and domains are not shown: there is no {PREDICTIONS}.")
    section.add(Heading("Rejected test rows"))
    add_rejected(section, folder, "test_rejected.parquet", settings.table_rows)
    return section


def _facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    for name, title in TITLES.items():
        if name in results:
            low, high = results.get(f"{name}_ci95") or (None, None)
            interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
            facts.append((title, f"{results[name]:.3f}{interval}"))
    facts += [
        (title, f"{results[key]:.3f}")
        for key, title in (("id_mean_energy", "Mean energy, ID"),
                           ("ood_mean_energy", "Mean energy, OOD"))
        if key in results
    ]  # fmt: skip
    names = {"detector": "Detector", "encoder": "Encoder", "weights": "Weights", "dataset": "Data"}
    return facts + [(title, str(results[key])) for key, title in names.items() if results.get(key)]


def _rivals(section: Section, audit: dict[str, Any] | None) -> None:
    if not audit:
        section.lacks("What needs no training is not compared: an earlier version made this.")
        return
    if "not_made" in audit:
        section.lacks(f"What needs no training is not compared: {audit['not_made']}.")
        return
    if audit.get("warning"):
        section.say(f"{audit['warning']}.", "warning")

    def interval(found: dict[str, Any], name: str) -> Cell:
        low, high = found[f"{name}_ci95"]
        return Cell(f"{found[name]:.3f} [{low:.3f}, {high:.3f}]", found[name])

    section.add(
        Table(
            "What needs no training, on the same molecules",
            ("Rival", "AUROC [95 % interval]", "The model's lead"),
            [
                (Cell(rival_name(audit, rival)), interval(audit[rival], "auroc"),
                 interval(audit[rival], "lead"))
                for rival in RIVALS
            ], frozenset({1, 2}),
        )
    )  # fmt: skip


def _predictions(
    section: Section, table: pa.Table, p_told: dict[str, Any] | None, settings: ReportSettings,
    kind: Kind,
) -> None:  # fmt: skip
    numbers = pa.array(np.isfinite(table["energy"].to_numpy().astype(float)))
    if table.num_rows > (finite := pc.sum(numbers).as_py()):
        left = f"{table.num_rows - finite:,} test molecules have an energy that is no number"
        section.say(f"{left}; they are left out below.", "warning")
        table = table.filter(numbers)
    is_ood = table["is_ood"].to_numpy().astype(bool)
    energies = table["energy"].to_numpy().astype(float)
    groups = [("ID", "id", energies[~is_ood]), ("OOD", "ood", energies[is_ood])]
    plot, note = histogram("Energies of test molecules", "Energy (higher: more OOD)", groups)
    run = [("this detector", "inside", is_ood, energies)]
    made = "p_value" in table.column_names
    p_values = (
        table["p_value"].to_numpy().astype(float) if made
        else leave_one_out_p_values(energies, is_ood)
    )  # fmt: skip
    told = (
        "ID molecules should follow the diagonal; the higher OOD molecules rise at small p-values, "
        "the better they are told apart."
    )
    if made and p_told:
        told += (
            f" p ≤ {p_told['alpha']:g} of {100 * p_told['id_share']:.1f} % of the ID and "
            f"{100 * p_told['ood_share']:.1f} % of the OOD molecules, by "
            f"{p_told['calibration_molecules']:,} ID molecules of "
            f"{'validation' if p_told['calibrated_by'] == 'id_val' else 'calibration'}."
        )
        least = 1 / (1 + p_told["calibration_molecules"])
        if least > p_told["alpha"]:
            section.say(
                f"No p-value can be below {least:.3f} with so few calibration molecules: that no "
                f"molecule has p ≤ {p_told['alpha']:g} says nothing.", "warning",
            )  # fmt: skip
    if not made:
        why = (p_told or {}).get("not_made", "an earlier version made it")
        section.lacks(
            f"This evaluation has no p-values of its own ({why}), so whether those of a library "
            "hold is not tested here. Those below are made from the test set: each molecule "
            "against all other ID test molecules. ID ones are calibrated by that, but their "
            "domains need not be."
        )
    groups = [("ID", "id", p_values[~is_ood]), ("OOD", "ood", p_values[is_ood])]
    section.add(
        Charts([
            plot.chart(note), roc_chart(run), precision_chart(run),
            p_value_chart("Calibration of p-values", groups, told),
        ])
    )  # fmt: skip
    _domains(section, table, is_ood, energies, p_values, settings.table_rows)
    _mistakes(section, table, is_ood, energies, settings.molecules, kind)


def _domains(
    section: Section, table: pa.Table, is_ood: np.ndarray, energies: np.ndarray,
    p_values: np.ndarray, most: int,
) -> None:  # fmt: skip
    section.add(Heading("By domain"))
    domains = table["domain"] if "domain" in table.column_names else pa.nulls(len(table))
    names = np.array([text or "" for text in domains.to_pylist()], dtype=object)
    if not any(names):
        section.lacks("The test molecules have no domains.")
        return
    keys = np.array([f"{name}\0{int(kind)}" for name, kind in zip(names, is_ood)])
    _, first, row_of = np.unique(keys, return_index=True, return_inverse=True)
    sizes = np.bincount(row_of)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(row_of, weights=values) / sizes

    areas, means, small = mean(placements(energies, is_ood)), mean(energies), mean(p_values <= 0.05)
    order = np.argsort(-sizes, kind="stable")
    rows = [
        (
            Cell(names[first[i]] or "(none)"), Cell("OOD" if is_ood[first[i]] else "ID"),
            count(int(sizes[i])), number_cell(means[i]), number_cell(areas[i]),
            Cell(f"{100 * small[i]:.0f} %", float(small[i])),
        )
        for i in order[:most]
    ]  # fmt: skip
    section.add(
        Table(
            f"{len(sizes):,} domains, the largest first",
            ("Domain", "Kind", "Molecules", "Mean energy", "AUROC against the other kind",
             "p ≤ 0.05"),
            rows, frozenset({2, 3, 4, 5}), max(0, len(sizes) - most),
        )
    )  # fmt: skip


def _mistakes(
    section: Section, table: pa.Table, is_ood: np.ndarray, energies: np.ndarray, most: int,
    kind: Kind,
) -> None:  # fmt: skip
    if not most:
        return
    for title, rows, sign in (
        ("ID molecules of the highest energy", np.flatnonzero(~is_ood), -1),
        ("OOD molecules of the lowest energy", np.flatnonzero(is_ood), 1),
    ):
        worst = rows[np.argsort(sign * energies[rows], kind="stable")[:most]]
        found = table.take(pa.array(worst)).to_pylist()
        section.add(
            Molecules(
                title,
                [
                    [drawn(row["smiles"], row["id"], f"energy {row['energy']:.3g}", kind)]
                    for row in found
                ],
            )
        )
