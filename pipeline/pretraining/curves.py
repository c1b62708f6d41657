"""The curves of a pretraining: as CSV while it runs, as lines in the log, as a figure."""

from __future__ import annotations

import csv
import io
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import fsspec
from matplotlib.figure import Figure

from pipeline.runtime.files import remove
from pipeline.runtime.plots import plain_axes, save_figure

log = logging.getLogger(__name__)

WATCH_SECONDS = 5.0

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


@contextmanager
def watched(curves: str) -> Iterator[None]:
    """Log each new line that the workers add to the curves."""
    remove(curves)
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(curves, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(curves: str, ended: threading.Event) -> None:
    fs, path = fsspec.url_to_fs(curves)
    told = 1  # the first line is before any step
    while not ended.wait(WATCH_SECONDS):
        fs.invalidate_cache()
        if not fs.exists(path):
            continue
        lines = list(csv.DictReader(io.StringIO(fs.cat_file(path).decode())))
        for line in lines[told:]:
            log.info(
                "step %s, epoch %.2f: training loss %.3f, held-out loss %.3f "
                "(atoms told %.1f %%, distances %.4f)",
                line["step"], float(line["epoch"]), float(line["train_loss"]),
                float(line["heldout_loss"]), 100 * float(line["heldout_accuracy"]),
                float(line["heldout_distance"]),
            )  # fmt: skip
        told = max(told, len(lines))
