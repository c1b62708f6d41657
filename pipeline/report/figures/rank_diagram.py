"""The critical-difference diagram of average ranks, as inline SVG.

Source: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.report.blocks import Chart
from pipeline.report.templating import svg
from pipeline.runtime.text import shortened

AXIS, TOP, CHARACTER = 300, 54, 6.6  # in the picture's units
ROW, CLIQUE, MOST_CHARACTERS, MOST_TICKS = 20, 8, 36, 14


def rank_diagram(title: str, ranks: Mapping[str, float], distance: float, note: str) -> Chart:
    """Methods on an axis of ranks, bars below it over those that are not told apart.

    Parameters
    ----------
    ranks : average ranks of two methods or more, the best of those that were ranked.
    distance : the critical difference of all that were ranked.
    """
    names = sorted(ranks, key=ranks.__getitem__)
    places = [ranks[name] for name in names]
    groups = cliques(places, distance)
    k = len(names)
    # beyond k where but the best are drawn: ranks go up to the number of all methods
    end = max(k, int(np.ceil(places[-1])))
    left_half = -(-k // 2)
    texts = [f"{shortened(name, MOST_CHARACTERS)}  {ranks[name]:.2f}" for name in names]
    side = CHARACTER * max(map(len, texts)) + 20
    width = round(AXIS + 2 * side)
    labels = TOP + 18 + CLIQUE * len(groups)

    def at(rank: float) -> float:
        return round(side + (rank - 1) / (end - 1) * AXIS, 1)

    methods = []
    for place, text in enumerate(texts):
        on_left = place < left_half
        row = place if on_left else k - 1 - place
        methods.append(
            {
                "x": at(places[place]), "y": labels + ROW * row, "left": on_left,
                "end": round(side - 12 if on_left else width - side + 12, 1), "text": text,
            }
        )  # fmt: skip
    drawing = svg(
        "rank_diagram.svg", title=title,
        told="; ".join(f"{name} {ranks[name]:.2f}" for name in names),
        width=width, height=labels + ROW * (left_half - 1) + 14, top=TOP,
        axis=(at(1), at(end)),
        ticks=[(at(r), r) for r in range(1, end + 1, -(-end // MOST_TICKS))],
        distance=(at(1), at(1 + min(distance, end - 1)), f"critical difference {distance:.2f}"
                  + (" (longer than the axis)" if distance > end - 1 else "")),
        cliques=[(at(places[a]) - 3, at(places[b]) + 3, TOP + 10 + CLIQUE * i)
                 for i, (a, b) in enumerate(groups)],
        methods=methods,
    )  # fmt: skip
    return Chart(title, drawing, (), note, wide=True)


def cliques(ranks: Sequence[float], distance: float) -> list[tuple[int, int]]:
    """Largest groups (first, last in order of rank) that span less than `distance`."""
    order = np.sort(ranks)
    groups, reached = [], -1
    for first in range(len(order)):
        last = int(np.searchsorted(order, order[first] + distance, side="left")) - 1
        if last > max(first, reached):
            groups.append((first, last))
        reached = max(reached, last)
    return groups
