"""Figures of a comparison and of a pretraining, as PNG files at a path or URI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve

from pipeline.comparison.run_folders import ARMS, Run
from pipeline.comparison.statistics import Mover, movers, spread
from pipeline.comparison.summary_text import spread_text
from pipeline.molecules.drawing.drawings import (
    MOLECULES_A_ROW,
    Cell,
    molecule_grid,
)
from pipeline.runtime.plots import plain_axes, save_figure

# Okabe and Ito's colours, told apart with any colour vision; the arms and the classes have
# colours of their own, so that one colour never means two things.
ARM_COLORS = {"frozen": "#0072B2", "finetuned": "#D55E00"}
CLASS_COLORS = {"ID": "#009E73", "OOD": "#CC79A7"}
CLASS_LINES = {"ID": "-", "OOD": "--"}
BINS = 40
MOVERS_SHOWN = 8
DYNAMICS = {
    "loss": "Training loss",
    "val_auroc": "Validation AUROC",
    "misranked_share": "Misranked share of training pairs",
    "mean_margin": "Mean energy margin, OOD − ID",
}


def write_figures(
    folder: str, runs: Sequence[Run], cosines: Mapping[int, np.ndarray], is_ood: np.ndarray
) -> list[str]:
    """Write every figure that the runs at hand suffice for.

    Parameters
    ----------
    folder : path or URI.
    runs : of both arms or of one.
    cosines, is_ood : as `drift_figure`; no cosines, no such figure.

    Returns
    -------
    list
        Names of the files written.

    Raises
    ------
    InputError
        If runs differ in their test molecules.
    """
    written = []
    if runs:
        roc_figure(runs, f"{folder}/roc.png")
        energy_figure(runs, f"{folder}/energies.png")
        written += ["roc.png", "energies.png"]
    if any(run.dynamics for run in runs):
        dynamics_figure(runs, f"{folder}/dynamics.png")
        written.append("dynamics.png")
    if cosines:
        drift_figure(cosines, is_ood, f"{folder}/drift.png")
        written.append("drift.png")
    gained, lost = movers(*(_of_arm(runs, arm) for arm in ARMS), MOVERS_SHOWN)
    if gained or lost:
        movers_figure(gained, lost, f"{folder}/movers.png")
        written.append("movers.png")
    return written


def roc_figure(runs: Sequence[Run], path: str) -> None:
    """Each arm's mean ROC curve over its seeds, and thinly each seed's."""
    figure = Figure(figsize=(6, 6.2), layout="constrained")
    axes = plain_axes(figure.subplots())
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    grid = np.linspace(0, 1, 501)
    for arm in ARMS:
        curves = []
        for run in _of_arm(runs, arm):
            fpr, tpr, _ = roc_curve(run.is_ood, run.energies)
            axes.plot(fpr, tpr, color=ARM_COLORS[arm], linewidth=0.7, alpha=0.4)
            curves.append(np.interp(grid, fpr, tpr))
        if curves:
            auroc = spread_text(spread([run.results["auroc"] for run in _of_arm(runs, arm)]))
            # The curve starts in the corner, where the average at FPR 0 need not be.
            mean = np.concatenate([[0], np.mean(curves, axis=0)])
            axes.plot(
                np.concatenate([[0], grid]), mean, color=ARM_COLORS[arm], linewidth=2.2,
                label=f"{arm}: AUROC {auroc} ({_seeds(len(curves))})",
            )  # fmt: skip
    axes.set(
        xlabel="False positive rate: ID molecules taken for OOD",
        ylabel="True positive rate: OOD molecules found",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        aspect="equal",
        title="Finding OOD test molecules by energy",
    )
    axes.legend(loc="lower right", frameon=False)
    save_figure(figure, path)


def energy_figure(runs: Sequence[Run], path: str) -> None:
    """Histograms of the test energies of ID and OOD molecules, a panel an arm, seeds together."""
    arms = [arm for arm in ARMS if _of_arm(runs, arm)]
    figure = Figure(figsize=(5 * len(arms), 4), layout="constrained")
    for axes, arm in zip(figure.subplots(1, len(arms), squeeze=False)[0], arms):
        chosen = _of_arm(runs, arm)
        energies = np.concatenate([run.energies for run in chosen])
        is_ood = np.concatenate([run.is_ood for run in chosen])
        _histograms(plain_axes(axes), energies, is_ood, _edges(energies.min(), energies.max()))
        axes.set(
            xlabel="Energy (higher: more OOD)",
            title=f"{arm.capitalize()} encoder, {_seeds(len(chosen))}",
        )
    save_figure(figure, path)


def dynamics_figure(runs: Sequence[Run], path: str) -> None:
    """Loss, validation AUROC, misranked share and mean margin by epoch; a line a seed."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, DYNAMICS.items()):
        plain_axes(axes).set(xlabel="Epoch", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for arm in ARMS:
            for i, run in enumerate(_of_arm(runs, arm)):
                epochs = [epoch for epoch in run.dynamics if name in epoch]
                axes.plot(
                    [epoch["epoch"] for epoch in epochs], [epoch[name] for epoch in epochs],
                    color=ARM_COLORS[arm], linewidth=1.3, alpha=0.8, marker=".", markersize=4,
                    label=arm if i == 0 else None,
                )  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, path)


def drift_figure(cosines: Mapping[int, np.ndarray], is_ood: np.ndarray, path: str) -> None:
    """How far finetuning moved the features of ID and of OOD test molecules.

    Parameters
    ----------
    cosines : by seed, the cosine (n,) of each test molecule's finetuned to its frozen feature.
    is_ood : (n,) bool, in the order of the cosines.
    """
    values = np.concatenate(list(cosines.values()))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = plain_axes(figure.subplots())
    # Features that did not move stand at 1 but for rounding, which is not worth a picture.
    edges = _edges(min(values.min(), 0.999), 1.0)
    _histograms(axes, values.clip(max=1.0), np.tile(is_ood, len(cosines)), edges)
    axes.set(
        xlabel="Cosine of finetuned to frozen feature (1: unchanged)",
        title=f"Feature drift of test molecules, {_seeds(len(cosines))}",
    )
    save_figure(figure, path)


def movers_figure(gained: Sequence[Mover], lost: Sequence[Mover], path: str) -> None:
    """Structures of the molecules whose energy percentile moved most, in either direction."""
    parts = [
        (title, found)
        for title, found in (
            ("Gained most by finetuning: OOD moved up, ID moved down", gained),
            ("Lost most by finetuning: OOD moved down, ID moved up", lost),
        )
        if found
    ]
    rows = [-(-len(found) // MOLECULES_A_ROW) for _, found in parts]
    figure = Figure(figsize=(2.6 * MOLECULES_A_ROW, 2.5 * sum(rows) + 0.9), layout="constrained")
    figure.supxlabel("%: percentile among all test energies, frozen → finetuned", fontsize=11)
    subfigures = figure.subfigures(len(parts), 1, height_ratios=rows, squeeze=False)[:, 0]
    for subfigure, (title, found), row_count in zip(subfigures, parts, rows):
        molecule_grid(subfigure, title, [_moved(mover) for mover in found], row_count)
    save_figure(figure, path)


def _moved(mover: Mover) -> Cell:
    kind = "OOD" if mover.is_ood else "ID"
    return Cell(
        mover.smiles, f"{kind}  {100 * mover.before:.0f} % → {100 * mover.after:.0f} %", mover.id
    )


def _histograms(axes: Axes, values: np.ndarray, is_ood: np.ndarray, edges: np.ndarray) -> None:
    for kind, mask in (("ID", ~is_ood), ("OOD", is_ood)):
        shares = np.histogram(values[mask], edges)[0] / max(mask.sum(), 1)
        axes.stairs(shares, edges, fill=True, color=CLASS_COLORS[kind], alpha=0.35)
        axes.stairs(shares, edges, color=CLASS_COLORS[kind], linestyle=CLASS_LINES[kind],
                    linewidth=1.6, label=f"{kind} molecules")  # fmt: skip
    axes.set_ylabel("Share of the ID or OOD molecules")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.ticklabel_format(useOffset=False)
    axes.legend(frameon=False)


def _edges(low: float, high: float) -> np.ndarray:
    """Bin edges from low to high, a unit wide where both are the same."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def _of_arm(runs: Sequence[Run], arm: str) -> list[Run]:
    return sorted((run for run in runs if run.arm == arm), key=lambda run: run.seed)


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
