"""A map of chemical space: training and library molecules in two dimensions of their ECFP4."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.molecules.fingerprints import ecfp4
from pipeline.report.blocks import Chart
from pipeline.report.plot import Plot

# Colour and shape of each kind: told apart without colours too.
LOOK = {
    "ID, training": ("id", "circle"),
    "OOD, training": ("ood", "square"),
    "library, inside": ("inside", "triangle"),
    "library, outside": ("outside", "diamond"),
}


def chemical_map(
    kinds: Mapping[str, Sequence[str]], totals: Mapping[str, int], seed: int
) -> Chart | None:
    """The chart; None where too few molecules differ.

    Parameters
    ----------
    kinds : SMILES of each kind of LOOK, all of which parse.
    totals : molecules of each kind that these were drawn from.
    """
    smiles = [text for each in kinds.values() for text in each]
    if len(smiles) < 3:
        return None
    bits = ecfp4(smiles)
    if (bits == bits[0]).all():  # no direction in which they differ
        return None
    places, told, axes = _layout(bits, seed)
    plot = Plot("Training set and library in chemical space", f"{axes} 1", f"{axes} 2")
    start = 0
    # the training set lies below the library
    for kind, each in kinds.items():
        here = places[start : start + len(each)]
        start += len(each)
        shown = f"{len(each):,}" + (f" of {totals[kind]:,}" if totals[kind] > len(each) else "")
        plot.points(here[:, 0], here[:, 1], LOOK[kind][0], f"{kind} ({shown})", LOOK[kind][1])
    drawn = any(totals[kind] > len(each) for kind, each in kinds.items())
    note = " Where the legend says “of”, the molecules were drawn at random." if drawn else ""
    return plot.chart(told + note, wide=True, height=460)


def _layout(bits: np.ndarray, seed: int) -> tuple[np.ndarray, str, str]:
    """Places (n, 2), how they were made, and what the axes are called."""
    if importlib.util.find_spec("umap") and len(bits) > 15:
        import umap

        places = umap.UMAP(metric="jaccard", random_state=seed).fit_transform(bits.astype(bool))
        return places, (
            "By UMAP (umap-learn) of ECFP4 with Jaccard distances: neighbours are alike, "
            "distances between groups and the axes mean nothing."
        ), "UMAP"  # fmt: skip
    from sklearn.decomposition import PCA  # slow to import

    # randomized: two components of 2,048 bits need no full decomposition
    made = PCA(2, svd_solver="randomized", random_state=seed)
    places = made.fit_transform(bits.astype(np.float32))
    first, second = 100 * made.explained_variance_ratio_
    return places, (
        f"By PCA of ECFP4 (2,048 bits). The axes hold {first:.1f} % and {second:.1f} % of the "
        "variance: molecules far apart here differ, those close together may differ in the rest. "
        "(UMAP is used in its place where umap-learn is installed.)"
    ), "Principal component"  # fmt: skip
