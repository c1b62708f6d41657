"""The critical-difference diagram of average ranks, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.report.blocks import Chart
from pipeline.report.ranks import Ranks
from pipeline.report.templating import svg
from pipeline.runtime.text import shortened

AXIS, TOP, CHARACTER = 300, 54, 6.6  # in the picture's units
ROW, CLIQUE, MOST_CHARACTERS = 20, 8, 36


def rank_diagram(title: str, names: Sequence[str], found: Ranks, note: str) -> Chart:
    """Methods on an axis of ranks, bars below it over those that are not told apart."""
    order = np.argsort(found.ranks, kind="stable")
    k = len(order)
    left_half = -(-k // 2)
    cliques = found.cliques
    texts = {m: f"{shortened(names[m], MOST_CHARACTERS)}  {found.ranks[m]:.2f}" for m in order}
    side = CHARACTER * max(map(len, texts.values())) + 20
    width = round(AXIS + 2 * side)
    labels = TOP + 18 + CLIQUE * len(cliques)

    def at(rank: float) -> float:
        return round(side + (rank - 1) / (k - 1) * AXIS, 1)

    methods = []
    for place, method in enumerate(order):
        on_left = place < left_half
        row = place if on_left else k - 1 - place
        methods.append(
            {
                "x": at(found.ranks[method]), "y": labels + ROW * row, "left": on_left,
                "end": round(side - 12 if on_left else width - side + 12, 1),
                "text": texts[method],
            }
        )  # fmt: skip
    ranks = found.ranks[order]
    span = min(found.distance, k - 1)
    drawing = svg(
        "rank_diagram.svg", title=title,
        told="; ".join(f"{names[m]} {found.ranks[m]:.2f}" for m in order),
        width=width, height=labels + ROW * (left_half - 1) + 14, top=TOP,
        axis=(at(1), at(k)), ticks=[(at(r), r) for r in range(1, k + 1)],
        distance=(at(1), at(1 + span), f"critical difference {found.distance:.2f}"
                  + (" (longer than the axis)" if found.distance > k - 1 else "")),
        cliques=[(at(ranks[a]) - 3, at(ranks[b]) + 3, TOP + 10 + CLIQUE * i)
                 for i, (a, b) in enumerate(cliques)],
        methods=methods,
    )  # fmt: skip
    return Chart(title, drawing, (), note, wide=True)
