"""The figure of jobs.augment: how far each method is above nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from pipeline.augmentation.intervals import HARMS, HELPS
from pipeline.augmentation.methods import OF_A_GENERATOR, PLAIN
from pipeline.augmentation.summary_text import TITLES
from pipeline.runtime.plots import plain_axes, save_figure

CHEAP, MADE = "#0072B2", "#D55E00"


def differences_figure(tests: Mapping[str, Mapping[str, Any]], path: str) -> None:
    """Differences to nothing with 95-percent intervals: a row a test, a panel a metric.

    Filled where something is shown.

    Parameters
    ----------
    tests : as in augmentation_summary.json.
    """
    names = [name for name in next(iter(tests.values()))["methods"] if name != PLAIN]
    height = 0.9 + 0.34 * len(names)
    figure = Figure(figsize=(12, 0.4 + height * len(tests)), layout="constrained")
    panels = figure.subplots(len(tests), len(TITLES), sharey=True, squeeze=False)
    for (test, found), row in zip(tests.items(), panels):
        for (metric, title), axes in zip(TITLES.items(), row):
            plain_axes(axes).axvline(0, color="0.4", linewidth=1)
            for place, name in enumerate(names):
                gain = found["methods"][name]["difference"][metric]
                low, high = gain["ci95"]
                color = MADE if name in OF_A_GENERATOR else CHEAP
                fill = color if gain["verdict"] in (HELPS, HARMS) else "white"
                axes.plot([low, high], [place, place], color=color, linewidth=2)
                axes.plot(gain["mean"], place, "o", color=color, markerfacecolor=fill)
            axes.set(title=f"{title}, {test}", yticks=range(len(names)), yticklabels=names)
        row[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(
        "Difference to nothing [95 %]; filled: the interval excludes 0 and all seeds agree",
        fontsize=10,
    )
    save_figure(figure, path)
