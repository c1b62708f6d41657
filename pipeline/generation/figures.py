"""The figures of jobs.generate: learning, loss by step, quality, real and generated features."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.runtime.plots import plain_axes, save_figure

MODEL, LINEAR, ZERO = ("#0072B2", "-"), ("#D55E00", "--"), ("0.5", ":")
NAMES = {"model": "Generator", "linear": "Best linear guess", "zero": "Zero"}
REAL, MADE, REFUSED = "0.45", "#D55E00", "#56B4E9"
MOST_POINTS = 1000  # of each kind and class on the map
COLUMNS = 4  # of a figure with a panel for each class
MOST_PANELS = 12


def learning_figure(
    history: Sequence[Mapping[str, float]], by_time: Sequence[Mapping[str, float]], path: str
) -> None:
    """Held-out losses over training and over diffusion steps, beside the two baselines.

    Parameters
    ----------
    history, by_time : as `diffusion.loop.generator_loop` returns them.
    path : path or URI of the PNG.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = (plain_axes(axes) for axes in figure.subplots(1, 2))
    steps = [line["step"] for line in history]
    left.plot(steps, [line["train_loss"] for line in history], color="#56B4E9",
              label="Generator, training rows")  # fmt: skip
    for name, (color, style) in zip(("heldout", "linear", "zero"), (MODEL, LINEAR, ZERO)):
        label = NAMES.get(name, "Generator, held-out rows")
        left.plot(steps, [line[f"{name}_loss"] for line in history], style, color=color,
                  label=label)  # fmt: skip
    left.set(xlabel="Step of training", ylabel="Mean squared error", title="Learning",
             ylim=(0, None))  # fmt: skip
    middles = [(line["from_step"] + line["to_step"]) / 2 for line in by_time]
    for name, (color, style) in zip(NAMES, (MODEL, LINEAR, ZERO)):
        right.plot(middles, [line[f"{name}_loss"] for line in by_time], style, color=color,
                   label=NAMES[name])  # fmt: skip
    right.set(xlabel="Diffusion step (0: hardly any noise)", title="Held-out rows by step",
              ylim=(0, None))  # fmt: skip
    left.legend(frameon=False)
    right.legend(frameon=False)
    save_figure(figure, path)


def quality_figure(
    quality: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray], threshold: float, path: str
) -> None:
    """Histograms of quality of each class: candidates, and real rows that set no scale.

    Parameters
    ----------
    quality, real : by class, (n,) each.
    """
    figure, panels = _panels(list(quality))
    bins = np.linspace(0, 1, 21)
    for name, axes in panels.items():
        for values, color, label in (
            (real[name], REAL, "a second real sample"),
            (quality[name], MADE, "candidates"),
        ):
            if len(values):
                weights = np.full(len(values), 100 / len(values))
                axes.hist(values, bins, weights=weights, color=color, alpha=0.55, label=label)
        axes.axvline(threshold, color="0.2", linestyle="--", linewidth=1)
        axes.set(title=f"{name} (threshold {threshold:g})", xlabel="Quality", ylabel="Share (%)")
    next(iter(panels.values())).legend(frameon=False)
    save_figure(figure, path)


def map_figure(
    real: Mapping[str, np.ndarray], returned: Mapping[str, np.ndarray],
    refused: Mapping[str, np.ndarray], seed: int, path: str,
) -> None:  # fmt: skip
    """Real, returned and refused features of each class in the plane of the real ones.

    By UMAP of umap-learn where that is installed, else by PCA. Of one feature there is no map.

    Parameters
    ----------
    real, returned, refused : by class, standardised (n, d).
    """
    if next(iter(real.values())).shape[1] < 2:
        return
    rng = np.random.default_rng(seed)
    some = {
        kind: {name: rows[rng.permutation(len(rows))[:MOST_POINTS]] for name, rows in each.items()}
        for kind, each in (("refused", refused), ("real", real), ("returned", returned))
    }
    place, axis = _plane(np.concatenate(list(some["real"].values())), seed)
    figure, panels = _panels(list(real))
    looks = {"refused": (REFUSED, "x"), "real": (REAL, "o"), "returned": (MADE, "^")}
    for name, axes in panels.items():
        for kind, (color, marker) in looks.items():
            rows = some[kind][name]
            if len(rows):
                x, y = place(rows).T
                axes.scatter(x, y, 9, color=color, marker=marker, alpha=0.6, linewidths=0.5,
                             label=f"{kind} ({len(rows):,})")  # fmt: skip
        axes.set(title=name, xlabel=f"{axis} 1", ylabel=f"{axis} 2")
        axes.legend(frameon=False, fontsize="small")
    save_figure(figure, path)


def _plane(rows: np.ndarray, seed: int):
    """What maps rows (n, d) to places (n, 2), and what its axes are called."""
    if importlib.util.find_spec("umap") and len(rows) > 15:
        import umap

        return umap.UMAP(random_state=seed % 2**32).fit(rows).transform, "UMAP"
    from sklearn.decomposition import PCA

    made = PCA(2, svd_solver="randomized", random_state=seed % 2**32).fit(rows)
    return made.transform, "Principal component"


def _panels(names: Sequence[str]) -> tuple[Figure, dict]:
    """A panel for each of the first classes."""
    shown = list(names)[:MOST_PANELS]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(max(5.0, 4.2 * columns), 3.8 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for spare in axes[len(shown) :]:
        spare.set_visible(False)
    if len(names) > len(shown):
        figure.suptitle(f"The first {len(shown)} of {len(names)} classes")
    return figure, {name: plain_axes(one) for name, one in zip(shown, axes)}
