"""Charts with axes, as inline SVG.

Why not matplotlib's SVG backend, which the PNG figures are made by: it draws each letter as a path
or names fonts of this machine, takes 20 to 60 kB and half a second a chart, has its own ids that
meet on one page, and fixed colours, so that a dark page would need a second set. Here a chart is
numbers in a template (`templates/plot.svg`): 1 to 6 kB, text as text, and colours by name, which
the style sheet gives for light, dark and print. Where ticks stand is still matplotlib's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.report.blocks import Chart, Swatch
from pipeline.report.templating import SHAPES, svg

WIDTH, WIDE, HEIGHT = 420, 720, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 44
MOST_POINTS = 800  # of a line: more than a screen shows


@dataclass(frozen=True)
class Mark:
    """One path of a chart; points of the data, not of the picture."""

    form: str
    color: str
    x: np.ndarray
    y: np.ndarray
    label: str | None


@dataclass
class Plot:
    """A chart that grows mark by mark; `chart` draws it.

    Attributes
    ----------
    x_range, y_range : of the axes; None: what the marks have.
    whole_x : ticks of x at whole numbers alone, as of epochs.
    """

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    whole_x: bool = False
    marks: list[Mark] = field(default_factory=list)
    rules: list[tuple[float, str]] = field(default_factory=list)

    def line(
        self, x: Sequence[float], y: Sequence[float], color: str, label: str | None = None,
        form: str = "line",
    ) -> None:  # fmt: skip
        """A line; `form` line, dashed, thin or dotted. Points that are no numbers are left out."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        fine = np.isfinite(x) & np.isfinite(y)
        x, y = thinned(x[fine], y[fine], MOST_POINTS)
        self._add(Mark(form, color, x, y, label))

    def stairs(
        self, edges: np.ndarray, heights: np.ndarray, color: str, label: str | None = None,
        form: str = "stairs",
    ) -> None:  # fmt: skip
        """A filled histogram of (k + 1,) edges and (k,) heights; `form` stairs or dashed-stairs."""
        x = np.repeat(edges, 2)
        y = np.concatenate([[0], np.repeat(heights, 2), [0]])
        self._add(Mark(form, color, x, y, label))

    def points(
        self, x: np.ndarray, y: np.ndarray, color: str, label: str | None, shape: str = "circle"
    ) -> None:
        """Points, each a shape of SHAPES."""
        self._add(Mark(shape, color, np.asarray(x, float), np.asarray(y, float), label))

    def rule(self, x: float, label: str) -> None:
        """An upright line through the chart."""
        if np.isfinite(x):
            self.rules.append((float(x), label))

    def chart(self, note: str = "", wide: bool = False, height: int = HEIGHT) -> Chart:
        """The chart."""
        x_range = self.x_range or _reach([m.x for m in self.marks], [x for x, _ in self.rules])
        y_range = self.y_range or _reach([m.y for m in self.marks], [])
        width = WIDE if wide else WIDTH
        x_at = _scale(x_range, LEFT, width - RIGHT)
        y_at = _scale(y_range, height - BOTTOM, TOP)
        drawing = svg(
            "plot.svg",
            title=self.title,
            told=f"{self.y_label} by {self.x_label}",
            width=width, height=height, left=LEFT, right=width - RIGHT, top=TOP,
            bottom=height - BOTTOM,
            x_label=self.x_label,
            y_label=self.y_label,
            x_ticks=[(x_at(t), text) for t, text in ticks(x_range, width // 70, self.whole_x)],
            y_ticks=[(y_at(t), text) for t, text in ticks(y_range, 5)],
            marks=[(m.form, m.color, _path(m, x_at, y_at)) for m in self.marks],
            rules=[(float(x_at(x)), text) for x, text in self.rules
                   if x_range[0] <= x <= x_range[1]],
        )  # fmt: skip
        legend = [Swatch(m.color, m.form, m.label) for m in self.marks if m.label]
        for x, text in self.rules:
            beyond = "" if x_range[0] <= x <= x_range[1] else " (beyond the axis)"
            legend.append(Swatch("ink", "rule", text + beyond))
        return Chart(self.title, drawing, legend, note, wide)

    def _add(self, mark: Mark) -> None:
        if len(mark.x):
            self.marks.append(mark)


def histogram(
    title: str, x_label: str, groups: Sequence[tuple[str, str, np.ndarray]], shares: bool = True,
    bins: int = 40,
) -> tuple[Plot, str]:  # fmt: skip
    """Histograms of groups of values over each other, and what is to be said of them.

    Parameters
    ----------
    groups : label, colour and values of each; what is no number is left out, and said.
    shares : heights are shares of a group; else they are counts.
    """
    kept = [(label, color, np.asarray(v, float)) for label, color, v in groups]
    lost = sum(int((~np.isfinite(v)).sum()) for _, _, v in kept)
    kept = [(label, color, v[np.isfinite(v)]) for label, color, v in kept]
    every = np.concatenate([v for _, _, v in kept]) if kept else np.zeros(0)
    plot = Plot(title, x_label, "Share of the group" if shares else "Molecules")
    if not len(every):
        return plot, "no values"
    edges, beyond = _edges(every, bins)
    for number, (label, color, values) in enumerate(kept):
        if len(values):
            # what lies beyond counts in the last bin of its side
            heights = np.histogram(values.clip(edges[0], edges[-1]), edges)[0].astype(float)
            form = "stairs" if number == 0 else "dashed-stairs"
            plot.stairs(edges, heights / len(values) if shares else heights, color,
                        f"{label} ({len(values):,})", form)  # fmt: skip
    plot.x_range, plot.y_range = (edges[0], edges[-1]), (0, _top(plot))
    notes = [f"{beyond:,} values beyond the axis stand in its last bins"] if beyond else []
    notes += [f"{lost:,} have no value"] if lost else []
    return plot, "; ".join(notes)


def thinned(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most so many of a line's points, its ends among them."""
    if len(x) <= most:
        return x, y
    rows = np.unique(np.linspace(0, len(x) - 1, most).round().astype(int))
    return x[rows], y[rows]


def ticks(reach: tuple[float, float], most: int, whole: bool = False) -> list[tuple[float, str]]:
    """Values within a range where ticks stand, and their text."""
    from matplotlib.ticker import MaxNLocator  # slow to import

    low, high = reach
    places = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    slack = 1e-9 * (high - low)
    places = [float(p) for p in places if low - slack <= p <= high + slack]
    step = min(np.diff(places)) if len(places) > 1 else 1.0
    return [(p, short(p, step)) for p in places]


def short(value: float, step: float) -> str:
    """A tick's text, with the digits that its step needs."""
    if abs(value) < 1e-12 * max(1.0, abs(step)) or abs(value) < step * 1e-6:
        return "0"
    size = max(abs(value), step)
    if size >= 1e6 or step < 1e-4:
        return f"{value:.3g}"
    digits = max(0, int(np.ceil(-np.log10(step) - 1e-9)))
    digits += abs(step * 10**digits - round(step * 10**digits)) > 1e-6  # steps of 2.5
    return f"{value:,.{digits}f}".replace("-", "−")


def _edges(values: np.ndarray, bins: int) -> tuple[np.ndarray, int]:
    """Bin edges without the farthest values, where these would squeeze all others; their number."""
    low, high = values.min(), values.max()
    inner_low, inner_high = np.quantile(values, [0.005, 0.995])
    if high - low > 2 * (inner_high - inner_low) > 0:
        margin = 0.1 * (inner_high - inner_low)
        low, high = max(low, inner_low - margin), min(high, inner_high + margin)
    if high - low < 1e-9 * max(abs(low), abs(high), 1):
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1), int(((values < low) | (values > high)).sum())


def _top(plot: Plot) -> float:
    return 1.06 * max((float(m.y.max()) for m in plot.marks), default=1.0) or 1.0


def _reach(values: list[np.ndarray], more: list[float]) -> tuple[float, float]:
    """Least and greatest with a margin; a unit wide where there is but one value."""
    every = np.concatenate([*values, np.asarray(more, float)]) if values else np.zeros(0)
    every = every[np.isfinite(every)]
    if not len(every):
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-6):
        return low - 0.5, high + 0.5
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _scale(reach: tuple[float, float], start: float, end: float):
    low, high = reach

    def place(value):
        return np.round(start + (np.asarray(value, float) - low) / (high - low) * (end - start), 1)

    return place


def _path(mark: Mark, x_at, y_at) -> str:
    """The path's commands; numbers with one digit after the point."""
    places = [f"{x:g} {y:g}" for x, y in zip(x_at(mark.x), y_at(mark.y))]
    if mark.form in SHAPES:
        return "".join(f"M{place}{SHAPES[mark.form]}" for place in places)
    if len(places) == 1:  # a line of one point would not be seen
        return f"M{places[0]}{SHAPES['circle']}"
    return "M" + "L".join(places)
