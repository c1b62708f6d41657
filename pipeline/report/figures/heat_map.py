"""A heat map as inline SVG: rows × columns of one number each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.report.blocks import Chart
from pipeline.report.templating import svg
from pipeline.runtime.text import shortened

ROW, COLUMN, HEAD, CHARACTER = 26, 64, 14, 6.2  # in the picture's units
MOST_CHARACTERS = 36  # of a name


def heat_map(
    title: str, rows: Sequence[str], columns: Sequence[str], values: np.ndarray, *,
    value_name: str, reach: tuple[float, float], note: str = "",
) -> Chart:  # fmt: skip
    """A chart of values (r, c), the higher the stronger; NaN is said as –.

    Parameters
    ----------
    reach : values of no colour and of full colour; what lies beyond has the nearer one's.
    """
    left = min(MOST_CHARACTERS, max(map(len, rows))) * CHARACTER + 12
    longest = min(MOST_CHARACTERS, max(map(len, columns)))
    upright = longest * CHARACTER > COLUMN - 4
    top = HEAD + (longest * CHARACTER * 0.72 + 8 if upright else 14)
    strength = np.clip((values - reach[0]) / (reach[1] - reach[0]), 0, 1)
    cells = [
        (
            round(left + j * COLUMN, 1), round(top + i * ROW, 1),
            0.0 if np.isnan(values[i, j]) else round(float(strength[i, j]), 2),
            "–" if np.isnan(values[i, j]) else f"{values[i, j]:.3f}",
            f"{rows[i]}, {columns[j]}",
        )
        for i in range(len(rows)) for j in range(len(columns))
    ]  # fmt: skip
    slant = 0.72 * longest * CHARACTER if upright else 0
    drawing = svg(
        "heat_map.svg", title=title, told=f"{value_name}, {len(rows)} rows, {len(columns)} columns",
        width=round(left + COLUMN * len(columns) + slant + 4),
        height=round(top + ROW * len(rows) + 4),
        cells=cells, cell=(COLUMN, ROW), upright=upright,
        rows=[(round(left - 7, 1), round(top + i * ROW + ROW / 2 + 4, 1), _cut(name), name)
              for i, name in enumerate(rows)],
        columns=[(round(left + j * COLUMN + COLUMN / 2, 1), round(top - 7, 1), _cut(name), name)
                 for j, name in enumerate(columns)],
    )  # fmt: skip
    told = f"{value_name}: no colour up to {reach[0]:g}, full colour from {reach[1]:g}"
    return Chart(title, drawing, (), f"{told}. {note}".rstrip(), wide=True)


def _cut(name: str) -> str:
    return shortened(name, MOST_CHARACTERS)
