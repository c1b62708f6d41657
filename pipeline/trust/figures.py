"""The figure of jobs.trust: what is left of the error if the least trusted predictions go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.runtime.plots import plain_axes, save_figure
from pipeline.trust.judged import ORACLE, RANDOM
from pipeline.trust.metrics import retention

# Okabe and Ito's colours, told apart with any colour vision; random and oracle are grey and black
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
GREYS = {RANDOM: ("0.6", ":"), ORACLE: ("0.1", "--")}
LEAST_SHARE = 0.1  # of the predictions; of fewer the RMSE is noise


def trust_figure(
    scores: Mapping[str, np.ndarray], errors: np.ndarray, found: Mapping[str, Any], path: str
) -> None:
    """Retention curves, and each score's AUROC of the worst fifth with its interval.

    Parameters
    ----------
    scores : (n,) each, by name.
    errors : (n,), absolute.
    found : `scores` of `judged`.
    path : path or URI of the PNG.
    """
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = (plain_axes(axes) for axes in figure.subplots(1, 2))
    shares = np.linspace(LEAST_SHARE, 1, 181)
    plain = iter(COLORS * (1 + len(scores) // len(COLORS)))
    styles = {name: GREYS.get(name) or (next(plain), "-") for name in scores}
    for name, (color, line) in styles.items():
        kept = retention(scores[name], errors, shares)
        left.plot(100 * shares, kept, color=color, linestyle=line, linewidth=1.8, label=name)
    left.set(
        xlabel="Predictions kept, those with the lowest scores (%)",
        ylabel="RMSE of the predictions kept", title="Retention", ylim=(0, None),
    )  # fmt: skip
    names = [name for name in scores if name != ORACLE][::-1]
    for place, name in enumerate(names):
        area, (low, high) = found[name]["auroc_worst"], found[name]["auroc_worst_ci95"]
        right.plot([low, high], [place, place], color=styles[name][0], linewidth=2)
        right.plot(area, place, "o", color=styles[name][0])
    right.axvline(0.5, color="0.6", linestyle=":", linewidth=1)
    right.set(
        yticks=range(len(names)), yticklabels=names,
        xlabel="AUROC of the worst fifth (0.5: chance; 95 % interval)", title="Finding errors",
    )  # fmt: skip
    figure.legend(loc="outside lower center", ncols=min(4, len(scores)), frameon=False)
    save_figure(figure, path)
