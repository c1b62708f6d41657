"""Charts that several sections share: ROC, precision and recall, p-values, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.report.blocks import Chart
from pipeline.report.figures.plot import MOST_POINTS, Plot, thinned

MOST_STEPS = MOST_POINTS // 2 - 1  # with two points each, and two ends, all are drawn
DYNAMICS = {
    "loss": ("Training loss", "Loss"),
    "val_auroc": ("Validation AUROC", "AUROC"),
    "misranked_share": ("Misranked pairs", "Share of training pairs"),
    "near_boundary_share": ("Pairs near the boundary", "Share of training pairs"),
    "mean_margin": ("Margin", "Mean energy, OOD − ID"),
    "gradient_norm": ("Gradient norm", "Norm"),
}


def roc_chart(runs: Sequence[tuple[str, str, np.ndarray, np.ndarray]]) -> Chart:
    """ROC curves, OOD positive.

    Parameters
    ----------
    runs : label, colour, is_ood (n,) and energies (n,) of each.
    """
    from sklearn.metrics import roc_curve

    plot = Plot(
        "ROC: finding OOD molecules by energy", "False positive rate (ID taken for OOD)",
        "True positive rate (OOD found)", (-0.01, 1.01), (-0.01, 1.02),
    )  # fmt: skip
    plot.line([0, 1], [0, 1], "ink", "chance", "dotted")
    for label, color, is_ood, energies in runs:
        fpr, tpr, _ = roc_curve(is_ood, energies)
        plot.line(fpr, tpr, color, label, "dashed" if color == "frozen" else "line")
    return plot.chart()


def precision_chart(runs: Sequence[tuple[str, str, np.ndarray, np.ndarray]]) -> Chart:
    """Precision over recall, OOD positive; parameters as of `roc_chart`."""
    from sklearn.metrics import precision_recall_curve

    plot = Plot(
        "Precision and recall, OOD positive", "Recall (OOD found)",
        "Precision (found that are OOD)", (-0.01, 1.01), (0, 1.02),
    )  # fmt: skip
    share = float(np.mean(runs[0][2]))
    plot.line([0, 1], [share, share], "ink", f"chance: {share:.3f}", "dotted")
    for label, color, is_ood, energies in runs:
        precision, recall, _ = precision_recall_curve(is_ood, energies)
        plot.line(recall, precision, color, label, "dashed" if color == "frozen" else "line")
    return plot.chart()


def p_value_chart(title: str, groups: Sequence[tuple[str, str, np.ndarray]], note: str) -> Chart:
    """Shares of molecules with at most a p-value; on the diagonal where they are calibrated.

    Parameters
    ----------
    groups : label, colour and p-values of each.
    """
    plot = Plot(title, "p-value", "Share with this p or less",
                (-0.01, 1.01), (-0.01, 1.02))  # fmt: skip
    plot.line([0, 1], [0, 1], "ink", "calibrated", "dotted")
    for label, color, values in groups:
        fine = values[np.isfinite(values)]
        if len(fine):
            steps, sizes = np.unique(fine, return_counts=True)
            steps, shares = thinned(steps, np.cumsum(sizes) / len(fine), MOST_STEPS)
            x = np.concatenate([[0], np.repeat(steps, 2), [1]])
            y = np.concatenate([[0, 0], np.repeat(shares, 2)])
            form = "dashed" if color in ("ood", "outside") else "line"
            plot.line(x, y, color, f"{label} ({len(fine):,})", form)
    return plot.chart(note)


def dynamics_charts(
    runs: Sequence[tuple[str | None, str, str, Sequence[Mapping[str, float]]]],
) -> list[Chart]:
    """What DYNAMICS names over the epochs.

    Parameters
    ----------
    runs : label (None: not in the legend), colour, form of the line, and epochs of each.
    """
    charts = []
    for name, (title, unit) in DYNAMICS.items():
        plot = Plot(title, "Epoch", unit, whole_x=True)
        for label, color, form, epochs in runs:
            told = [epoch for epoch in epochs if np.isfinite(epoch.get(name, np.nan))]
            plot.line([e["epoch"] for e in told], [e[name] for e in told], color, label, form)
        if plot.marks:
            charts.append(plot.chart())
    return charts


def numbers_of(records: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
    """Rows of a CSV file with those of their values that are numbers."""
    found = []
    for record in records:
        row = {}
        for name, text in record.items():
            try:
                row[name] = float(text)
            except (TypeError, ValueError):
                continue
        found.append(row)
    return found
