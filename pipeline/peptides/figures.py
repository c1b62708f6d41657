"""The figures of jobs.generate_peptides: learning, and measures beside the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from pipeline.runtime.plots import plain_axes, save_figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "0.5")
MEASURES = {
    "residue_jsd": "Residues: divergence (bits)",
    "pair_jsd": "Pairs of residues: divergence (bits)",
    "nearest_identity": "Identity to the nearest of training",
    "amp_probability": "Antimicrobial (Macrel)",
}


def learning_figure(history: Sequence[Mapping[str, float]], path: str) -> None:
    """Losses over training beside the two baselines, and residues that the decoder tells right.

    Parameters
    ----------
    history : of `DiffusionState.train`.
    path : path or URI of the PNG.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = (plain_axes(axes) for axes in figure.subplots(1, 2))
    steps = [line["step"] for line in history]
    looks = {
        "train_loss": ("Generator, training peptides", "-", "#56B4E9"),
        "heldout_loss": ("Generator, held-out peptides", "-", "#0072B2"),
        "heldout_loss_with_structures": ("those that have structures, with them", "-.", "#009E73"),
        "heldout_loss_structures_hidden": ("the same, without them", ":", "#009E73"),
        "linear_loss": ("Best linear guess", "--", "#D55E00"),
        "zero_loss": ("Zero", ":", "0.5"),
    }
    for name, (label, style, color) in looks.items():
        if name in history[-1]:
            left.plot(steps, [line[name] for line in history], style, color=color, label=label)
    left.set(
        xlabel="Step of training", ylabel="Mean squared error", title="Learning", ylim=(0, None)
    )
    for name in (name for name in history[-1] if name.startswith("decoder_right_")):
        level = name.removeprefix("decoder_right_")
        right.plot(steps, [100 * line[name] for line in history], label=f"noise {level}")
    right.set(xlabel="Step of training", ylabel="Residues (%)", ylim=(0, 102),
              title="Decoder: residues told right, held-out")  # fmt: skip
    left.legend(frameon=False)
    right.legend(frameon=False)
    save_figure(figure, path)


def measures_figure(measures: Mapping[str, Mapping[str, Mapping[str, Any]]], path: str) -> None:
    """Each measure with its 95 % interval, by class: generated peptides and the controls."""
    samples = list(next(iter(measures.values())))
    names = [n for n in MEASURES if n in next(iter(next(iter(measures.values())).values()))]
    figure = Figure(figsize=(3.4 * len(names), 1.2 + 1.3 * len(measures)), layout="constrained")
    for name, axes in zip(names, figure.subplots(1, len(names), squeeze=False)[0]):
        plain_axes(axes)
        for row, of_class in enumerate(measures.values()):
            for place, (sample, color) in enumerate(zip(samples, COLORS)):
                value, (low, high) = of_class[sample][name], of_class[sample][f"{name}_ci95"]
                y = row + 0.18 * (place - 1.5)
                axes.plot([low, high], [y, y], color=color, linewidth=1)
                axes.plot([value], [y], "o", color=color, label=sample if row == 0 else None)
        axes.set(title=MEASURES[name], yticks=range(len(measures)), yticklabels=list(measures))
        axes.invert_yaxis()
    figure.axes[0].legend(frameon=False, fontsize="small")
    save_figure(figure, path)
