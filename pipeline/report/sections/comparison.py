"""A comparison: the frozen against the finetuned encoder over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.comparison.run_folders import ARMS, Run, align, read_run
from pipeline.comparison.statistics import BETTER, movers
from pipeline.comparison.summary_text import COSTS, TITLES, conclusion, spread_text
from pipeline.evaluation.audit import RIVALS, rival_name, warning_of
from pipeline.evaluation.metrics import METRICS
from pipeline.report.blocks import Cell, Chart, Charts, Heading, Molecules, Section, Table, number
from pipeline.report.figures.curves import dynamics_charts, precision_chart, roc_chart
from pipeline.report.figures.drawn import drawn
from pipeline.report.figures.plot import histogram
from pipeline.report.reading import Folder, reason
from pipeline.report.rejections import add_rejected
from pipeline.report.settings import ReportSettings
from pipeline.runtime.errors import InputError


def comparison_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.compare left."""
    summary = folder.json("comparison_summary.json")
    section = Section("Frozen against finetuned encoder", folder.place)
    section.say(conclusion(summary["improvement"]), "verdict")
    tests, seeds = summary["test_molecules"], ", ".join(map(str, summary["seeds"]))
    section.say(
        f"Seeds: {seeds}. Test molecules: {tests['id']:,} ID, {tests['ood']:,} OOD of "
        f"{summary['dataset']}. Encoder {summary['encoder']} (weights: {summary['weights']})."
    )
    for failed in summary["failed"]:
        told = f"{failed['arm']}, seed {failed['seed']} failed: {failed['reason']}"
        section.say(told, "warning")
    _metrics(section, summary)
    _rivals(section, summary)
    runs = _runs(section, folder, summary)
    if runs:
        section.add(Heading("Curves"), Charts(_curves(runs)))
        _dynamics(section, runs)
        _movers(section, runs, settings.molecules)
    _costs(section, summary)
    section.add(Heading("Rejected rows"))
    add_rejected(section, folder, "rejected.parquet", settings.table_rows)
    return section


def _metrics(section: Section, summary: dict[str, Any]) -> None:
    rows = []
    for name in METRICS:
        found = (summary["improvement"] or {}).get(name)
        change = Cell("–")
        if found:
            low, high = found["ci95"]
            change = Cell(f"{found['mean']:+.4f} [{low:+.4f}, {high:+.4f}]", found["mean"])
        arms = [summary["arms"][arm]["metrics"][name] for arm in ARMS]
        rows.append(
            (
                Cell(f"{TITLES[name]} ({BETTER[name]} is better)"),
                *(Cell(spread_text(arm), arm["mean"]) for arm in arms), change,
            )
        )  # fmt: skip
    section.add(
        Table(
            "Mean ± standard deviation over seeds; the interval is over test molecules",
            ("Metric", *ARMS, "Finetuned − frozen [95 % interval]"), rows, frozenset({1, 2, 3}),
        )
    )  # fmt: skip


def _rivals(section: Section, summary: dict[str, Any]) -> None:
    rivals = summary.get("rivals")
    if not rivals:
        section.lacks("What needs no training is not compared: an earlier version made this.")
        return
    rows = [(Cell(rival_name(rivals, rival)), number(rivals[rival]["auroc"])) for rival in RIVALS]
    caption = "What needs no training, on the same molecules"
    section.add(Table(caption, ("Rival", "AUROC"), rows, frozenset({1})))
    for arm in ARMS:
        mean = summary["arms"][arm]["metrics"]["auroc"]["mean"]
        told = None if mean is None else warning_of(rivals, mean, f"the {arm} encoder")
        if told:
            section.say(f"{told}.", "warning")


def _runs(section: Section, folder: Folder, summary: dict[str, Any]) -> list[Run]:
    """The runs that finished; what is wrong with the others is said."""
    runs: list[Run] = []
    failed = {(each["arm"], each["seed"]) for each in summary["failed"]}
    for arm in ARMS:
        for seed in summary["seeds"]:
            if (arm, seed) in failed:
                continue
            try:
                run = read_run(folder.uri, arm, seed)
                if not np.isfinite(run.energies).all():
                    raise InputError("it has energies that are no numbers")
                runs = align([*runs, run])
            except (InputError, ValueError, KeyError) as error:
                why = reason(error)
                section.lacks(f"The run {arm}/seed_{seed} is not in the figures: {why}.")
    return runs


def _curves(runs: list[Run]) -> list[Chart]:
    """Curves of each run, and energies of each arm with its seeds together."""
    first = {arm: next((run for run in runs if run.arm == arm), None) for arm in ARMS}
    lines = [
        (_label(run, runs) if run is first[run.arm] else None, run.arm, run.is_ood, run.energies)
        for run in runs
    ]
    charts = [roc_chart(lines), precision_chart(lines)]
    for arm in ARMS:
        mine = [run for run in runs if run.arm == arm]
        if mine:
            energies = np.concatenate([run.energies for run in mine])
            is_ood = np.concatenate([run.is_ood for run in mine])
            groups = [("ID", "id", energies[~is_ood]), ("OOD", "ood", energies[is_ood])]
            title = f"Energies, {arm} encoder"
            plot, note = histogram(title, "Energy (higher: more OOD)", groups)
            together = f"Energies of {len(mine)} seeds together, on the same molecules"
            charts.append(plot.chart("; ".join([together] * (len(mine) > 1) + [note] * bool(note))))
    return charts


def _label(run: Run, runs: list[Run]) -> str:
    areas = [each.results["auroc"] for each in runs if each.arm == run.arm]
    return f"{run.arm}: AUROC {np.mean(areas):.3f} ({len(areas)} seed{'s' * (len(areas) > 1)})"


def _dynamics(section: Section, runs: list[Run]) -> None:
    named, lines = set(), []
    for run in runs:
        form = "dashed" if run.arm == ARMS[0] else "line"
        lines.append((None if run.arm in named else run.arm, run.arm, form, run.dynamics))
        named.add(run.arm)
    charts = dynamics_charts(lines)
    if charts:
        section.add(Heading("Training"), Charts(charts))
    else:
        section.lacks("The runs have left no epochs.")


def _movers(section: Section, runs: list[Run], most: int) -> None:
    of_arm = [[run for run in runs if run.arm == arm] for arm in ARMS]
    if not most or not all(of_arm):
        return
    for title, found in zip(
        ("Gained most by finetuning: OOD moved up, ID moved down",
         "Lost most by finetuning: OOD moved down, ID moved up"),
        movers(*of_arm, most),
    ):  # fmt: skip
        groups = [
            [drawn(m.smiles, m.id, f"{'OOD' if m.is_ood else 'ID'} {100 * m.before:.0f} % → "
                                   f"{100 * m.after:.0f} %")] for m in found
        ]  # fmt: skip
        if groups:
            note = "Percentile among all test energies, frozen → finetuned."
            section.add(Molecules(title, groups, note))


def _costs(section: Section, summary: dict[str, Any]) -> None:
    costs = [summary["arms"][arm]["costs"] for arm in ARMS]
    rows = [
        (Cell(title), *(number(cost[key]["mean"] if key in cost else None, 2) for cost in costs))
        for key, title in COSTS.items()
        if any(key in cost for cost in costs)
    ]
    if rows:
        section.add(Table("Costs, mean over runs", ("Cost", *ARMS), rows, frozenset({1, 2})))
