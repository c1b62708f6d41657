"""Figures by matplotlib: their axes, and how they are written."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.runtime.files import write_atomically

DPI = 150


def save_figure(figure: Figure, path: str) -> None:
    """Write a figure as PNG, at a path or URI."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    write_atomically(path, content.getvalue())


def plain_axes(axes: Axes) -> Axes:
    """The axes without the frame's upper and right side, over a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes
