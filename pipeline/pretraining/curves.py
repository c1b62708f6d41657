"""The curves of a pretraining: as CSV while it runs, as lines in the log, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from pipeline.runtime.plots import plain_axes, save_figure

Panels = Mapping[str, str]  # title of each loss that is drawn, by its name
MOLECULES: Panels = {
    "loss": "Loss",
    "accuracy": "Share of hidden atom types told",
    "coord": "Coordinates, smooth L1",
    "distance": "Scaled distances, smooth L1",
}
SEQUENCES: Panels = {
    "loss": "Cross entropy of hidden residues, nats",
    "accuracy": "Share of hidden residues told",
}
LABELS = {"train": "Training, mean since the last point", "heldout": "Held out"}
COLORS = {"train": "#56B4E9", "heldout": "#000000"}


def pretraining_figure(history: Sequence[Mapping[str, float]], path: str, panels: Panels) -> None:
    """Training and held-out losses of a pretraining over its steps.

    Parameters
    ----------
    history : of a `Pretraining`; the first line has held-out losses alone.
    """
    rows = len(panels) // 2
    figure = Figure(figsize=(10, 3.2 * rows), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(rows, 2).flat, panels.items()):
        plain_axes(axes)
        for kind, color in COLORS.items():
            key = f"{kind}_{name}"
            lines = [line for line in history if key in line]
            axes.plot([line["step"] for line in lines], [line[key] for line in lines],
                      color=color, label=LABELS[kind])  # fmt: skip
        axes.set_title(title)
        axes.set_xlabel("Step")
        axes.set_ylim(bottom=0)
    figure.axes[0].legend(frameon=False)
    save_figure(figure, path)


def progress_line(line: Mapping[str, str]) -> str:
    """A row of the curves, as the log has it."""
    of = {name: float(line[name]) for name in line if name not in ("step", "seconds")}
    told = f"told {100 * of['heldout_accuracy']:.1f} %"
    if "heldout_distance" in of:
        told = f"atoms {told}, distances {of['heldout_distance']:.4f}"
    return (
        f"step {line['step']}, epoch {of['epoch']:.2f}: training loss {of['train_loss']:.3f}, "
        f"held-out loss {of['heldout_loss']:.3f} ({told})"
    )
