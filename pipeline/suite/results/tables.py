"""Tables of a suite for papers and readers: Markdown and LaTeX of the same cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.comparison.summary_text import spread_text
from pipeline.evaluation.audit import LEAST_LEAD
from pipeline.runtime.text import aligned
from pipeline.suite.results.statistics import method_of
from pipeline.suite.results.table import ALL_METRICS

TITLES = {
    "auroc": "AUROC (higher is better)",
    "aupr": "AUPR, OOD positive (higher is better)",
    "fpr95": "FPR at 95 % TPR, OOD positive (lower is better)",
    "aupr_id_positive": "AUPR, ID positive (higher is better)",
    "fpr95_id_positive": "FPR at 95 % TPR, ID positive (lower is better)",
}
COST_TITLES = {
    "train_time_seconds": "training, s",
    "evaluation_time_seconds": "scoring, s",
    "encoding_time_seconds": "encoding, s",
    "peak_resident_memory_train_gb": "training, GiB",
    "peak_resident_memory_eval_gb": "scoring, GiB",
    "peak_resident_memory_encoding_gb": "encoding, GiB",
    "peak_gpu_memory_train_gb": "training, GPU GiB",
    "peak_gpu_memory_eval_gb": "scoring, GPU GiB",
    "peak_gpu_memory_encoding_gb": "encoding, GPU GiB",
}
NONE = "–"
LATEX = {"\\": r"\textbackslash{}", "–": "--", "±": r"$\pm$", "−": "$-$", "†": r"$\dagger$",
         **{sign: rf"\{sign}" for sign in "&%$#_{}"}, "~": r"\textasciitilde{}",
         "^": r"\textasciicircum{}"}  # fmt: skip
ONCE = "† fitted once: no seed changes it. ± is the standard deviation over seeds."


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    bold : (row, column) of cells that stand out.
    notes : lines below it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: frozenset[tuple[int, int]] = frozenset()
    notes: Sequence[str] = field(default_factory=tuple)

    def markdown(self) -> str:
        """As Markdown."""
        rows = [
            [f"**{cell}**" if (i, j) in self.bold else cell for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]
        lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"
                 for row in (self.header, *rows)]  # fmt: skip
        lines.insert(1, "| --- " * len(self.header) + "|")
        return "\n".join([f"## {self.title}", "", *lines, "", *self.notes, ""])

    def text(self) -> str:
        """With aligned columns, for a terminal."""
        return "\n".join([self.title, *aligned(self.header, self.rows), *self.notes, ""])

    def latex(self) -> str:
        """As a LaTeX `table` for the package booktabs."""
        rows = [
            [rf"\textbf{{{latex(cell)}}}" if (i, j) in self.bold else latex(cell)
             for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]  # fmt: skip
        notes = " ".join(latex(note) for note in self.notes)
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{latex(self.title)}. {notes}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\toprule",
                " & ".join(map(latex, self.header)) + r" \\",
                r"\midrule",
                *(" & ".join(row) + r" \\" for row in rows),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )


def latex(text: str) -> str:
    """A text as LaTeX writes it."""
    return re.sub("|".join(map(re.escape, LATEX)), lambda found: LATEX[found[0]], text)


def tables_of(summary: Mapping[str, Any]) -> dict[str, Table]:
    """The tables of a summary, by the names of their files."""
    own = [group for group in summary["groups"] if group["data"] == group["test_data"]]
    made = {name: metric_table(name, own) for name in ALL_METRICS}
    made["auroc"] = _with_notes(made["auroc"], summary.get("failed_audits", ()))
    made["costs"] = cost_table(own)
    if summary["statistics"]["ranks"]:
        made["ranks"] = rank_table(summary["statistics"])
    if len(own) < len(summary["groups"]):
        made["cross_auroc"] = cross_table(summary["groups"])
    return made


def _with_notes(table: Table, failed_audits: Sequence[Mapping[str, str]]) -> Table:
    notes = [
        f"No best descriptor and no Tanimoto of {each['data']}: {each['reason']}."
        for each in failed_audits if each["data"] == each["test_data"]
    ]  # fmt: skip
    return replace(table, notes=[*table.notes, *notes])


def metric_table(name: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    """A metric by method and data set, and below it what needs no training (AUROC alone)."""
    data = list(dict.fromkeys(group["data"] for group in groups))
    cells: dict[str, dict[str, Mapping[str, Any]]] = {}
    for group in groups:
        cells.setdefault(method_of(group, with_encoder=True), {})[group["data"]] = group
    rows = [
        [method, *(_metric_cell(found.get(each), name) for each in data)]
        for method, found in cells.items()
    ]
    sign = -1 if name.startswith("fpr95") else 1
    bold = set()
    for column, each in enumerate(data, start=1):
        means = [sign * mean if mean is not None else -2.0 for mean in
                 (_mean(found.get(each), name) for found in cells.values())]  # fmt: skip
        best = max(means)
        bold |= {(row, column) for row, mean in enumerate(means) if mean == best > -2}
    notes = [ONCE, "Failed seeds are not in the means; a number in brackets counts what is."]
    if name == "auroc":
        rivals = _rival_rows(groups, data)
        rows += rivals
        if any(" to " in cell for row in rivals for cell in row[1:]):
            notes.append("A range: variants of a data set are trained on different molecules.")
        close = [each for each in data if any(g["warning"] for g in groups if g["data"] == each)]
        if close:
            notes.append(
                f"On {', '.join(close)} the best descriptor is within {LEAST_LEAD} of a method, or "
                "above it: such a split tests little, or the method tells nothing."
            )
    return Table(TITLES[name], ["", *data], rows, frozenset(bold), notes)


def _rival_rows(groups: Sequence[Mapping[str, Any]], data: Sequence[str]) -> list[list[str]]:
    """What needs no training; a range where variants are trained on different molecules."""
    rows: list[list[str]] = [["best descriptor"], ["Tanimoto to the nearest"]]
    for each in data:
        mine = [group for group in groups if group["data"] == each]
        found = [g for g in mine if g["best_descriptor_auroc"] is not None]
        names = ", ".join(dict.fromkeys(group["best_descriptor"] for group in found))
        area = _range([group["best_descriptor_auroc"] for group in found])
        rows[0].append(f"{area} ({names})" if names else area)
        rows[1].append(_range([group["tanimoto_auroc"] for group in found]))
    return rows


def _range(areas: Sequence[float]) -> str:
    ends = [f"{area:.3f}" for area in (min(areas), max(areas))] if areas else [NONE]
    return " to ".join(dict.fromkeys(ends))


def _mean(group: Mapping[str, Any] | None, name: str) -> float | None:
    return None if group is None else group["metrics"][name]["mean"]


def _metric_cell(group: Mapping[str, Any] | None, name: str) -> str:
    if group is None:
        return NONE
    if not group["num_seeds"]:
        return "failed"
    told = spread_text(group["metrics"][name]) + (" †" if group["any_seed"] else "")
    return f"{told} ({group['num_seeds']})" if group["failed_seeds"] else told


def cost_table(groups: Sequence[Mapping[str, Any]]) -> Table:
    """Times and memory by data set and method: the mean of a training, memory's largest."""
    used = [name for name in COST_TITLES
            if any(group["costs"].get(name, {"max": 0})["max"] for group in groups)]  # fmt: skip
    rows = [
        [group["data"], method_of(group, with_encoder=True),
         *(_cost(group["costs"].get(name), name) for name in used)]
        for group in groups
    ]  # fmt: skip
    notes = [
        "Seconds are the mean of one training; of heads that trained together its share. Encoding "
        "is that of all molecules that the store lacked. Memory is the "
        "largest, of the process that other work may have filled."
    ]
    return Table("Costs", ["data", "", *(COST_TITLES[name] for name in used)], rows, notes=notes)


def _cost(found: Mapping[str, float] | None, name: str) -> str:
    if found is None:
        return NONE
    if name.startswith("peak_"):
        return f"{found['max']:.2f}"
    # Cells that a killed run's successor makes find all in the store.
    return f"{found['max' if name == 'encoding_time_seconds' else 'mean']:.3g}"


def rank_table(statistics: Mapping[str, Any]) -> Table:
    """Average ranks, and differences to the reference with their tests."""
    found, versus = statistics["ranks"], statistics["versus_reference"]
    rows = []
    names = [*found["average_ranks"], *statistics["left_out"]]
    for name in names:
        rank = found["average_ranks"].get(name)
        row = [name, NONE if rank is None else f"{rank:.2f}"]
        each = versus.get(name)
        if each is None:
            rows.append(
                [*row, "reference" if name == statistics["reference"] else NONE, *[NONE] * 4]
            )
            continue
        rows.append([
            *row, f"{each['difference']:+.4f}", str(each["better"]), str(each["worse"]),
            f"{each['wilcoxon_p']:.3g}", f"{each['holm_p']:.3g}",
        ])  # fmt: skip
    p = found["friedman_p"]
    critical = found["critical_difference"]
    notes = [
        f"Ranks by AUROC over {found['blocks']} blocks, each {statistics['block']}; 1 is best. "
        + ("" if p is None else f"Friedman's test: p = {p:.3g}. ")
        + ("" if critical is None else f"Critical difference (Nemenyi, 5 %): {critical:.2f}."),
        f"Difference: mean AUROC less that of {statistics['reference']}. Better, worse: blocks "
        "whose 95 % interval (paired bootstrap over test molecules) excludes 0. p: Wilcoxon's "
        "signed-rank test over blocks; Holm: adjusted for the number of methods.",
        *(f"{note[0].upper()}{note[1:]}." for note in statistics["notes"]),
    ]
    header = ["", "average rank", "difference", "better", "worse", "p", "p (Holm)"]
    return Table("Average ranks and differences", header, rows, notes=notes)


def cross_table(groups: Sequence[Mapping[str, Any]]) -> Table:
    """AUROC of what was trained on one data set and tested on another."""
    data = list(dict.fromkeys(group["test_data"] for group in groups))
    cells: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for group in groups:
        key = method_of(group, with_encoder=True), group["data"]
        cells.setdefault(key, {})[group["test_data"]] = group
    rows = []
    for (method, trained), found in cells.items():
        row = [method, trained]
        for each in data:
            dropped = found[each]["dropped_test_molecules"] if each in found else 0
            left_out = f" (−{dropped})" if dropped else ""
            row.append(_metric_cell(found.get(each), "auroc") + left_out)
        rows.append(row)
    notes = [ONCE, "In brackets after −: test molecules that training or validation saw, left out."]
    title = "AUROC of what was trained on one data set (second column) and tested on another"
    return Table(title, ["", "trained on", *data], rows, notes=notes)
