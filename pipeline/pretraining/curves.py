"""The curves of a pretraining: as CSV while it runs, as lines in the log, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from pipeline.runtime.plots import plain_axes, save_figure

PRETRAINING = {
    "loss": "Loss",
    "accuracy": "Share of hidden atom types told",
    "coord": "Coordinates, smooth L1",
    "distance": "Scaled distances, smooth L1",
}
PRETRAINING_LABELS = {"train": "Training, mean since the last point", "heldout": "Held out"}
PRETRAINING_COLORS = {"train": "#56B4E9", "heldout": "#000000"}


def pretraining_figure(history: Sequence[Mapping[str, float]], path: str) -> None:
    """Training and held-out losses of a pretraining over its steps.

    Parameters
    ----------
    history : of `pipeline.pretraining.loop`; the first line has held-out losses alone.
    """
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, PRETRAINING.items()):
        plain_axes(axes)
        for kind, color in PRETRAINING_COLORS.items():
            key = f"{kind}_{name}"
            lines = [line for line in history if key in line]
            axes.plot([line["step"] for line in lines], [line[key] for line in lines],
                      color=color, label=PRETRAINING_LABELS[kind])  # fmt: skip
        axes.set_title(title)
        axes.set_xlabel("Step")
        axes.set_ylim(bottom=0)
    figure.axes[0].legend(frameon=False)
    save_figure(figure, path)


def progress_line(line: Mapping[str, str]) -> str:
    """A row of the curves, as the log has it."""
    of = {name: float(line[name]) for name in line if name not in ("step", "seconds")}
    return (
        f"step {line['step']}, epoch {of['epoch']:.2f}: training loss {of['train_loss']:.3f}, "
        f"held-out loss {of['heldout_loss']:.3f} (atoms told "
        f"{100 * of['heldout_accuracy']:.1f} %, distances {of['heldout_distance']:.4f})"
    )
