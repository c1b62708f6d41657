"""A map of training and library molecules in two dimensions of their fingerprints."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.molecules.features.fingerprints import fingerprints
from pipeline.molecules.kinds import SMILES, Kind
from pipeline.report.blocks import Chart
from pipeline.report.figures.plot import Plot

# Colour and shape of each kind: told apart without colours too.
LOOK = {
    "ID, training": ("id", "circle"),
    "OOD, training": ("ood", "square"),
    "library, inside": ("inside", "triangle"),
    "library, outside": ("outside", "diamond"),
}


def chemical_map(
    kinds: Mapping[str, Sequence[str]], totals: Mapping[str, int], seed: int, of: Kind = SMILES
) -> Chart | None:
    """The chart; None where too few molecules differ.

    Parameters
    ----------
    kinds : canonical texts of each kind of LOOK.
    totals : molecules of each kind that these were drawn from.
    of : how the molecules are written.
    """
    smiles = [text for each in kinds.values() for text in each]
    if len(smiles) < 3:
        return None
    bits = fingerprints(smiles, of)
    if (bits == bits[0]).all():  # no direction in which they differ
        return None
    places, told, axes = _layout(bits, seed, of.fingerprint)
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


def _layout(bits: np.ndarray, seed: int, of_what: str) -> tuple[np.ndarray, str, str]:
    """Places (n, 2), how they were made, and what the axes are called."""
    if importlib.util.find_spec("umap") and len(bits) > 15:
        import umap

        places = umap.UMAP(metric="jaccard", random_state=seed).fit_transform(bits.astype(bool))
        return places, (
            f"By UMAP (umap-learn) of {of_what} with Jaccard distances: neighbours are alike, "
            "distances between groups and the axes mean nothing."
        ), "UMAP"  # fmt: skip
    from sklearn.decomposition import PCA  # slow to import

    # randomized: two components of so many bits need no full decomposition
    made = PCA(2, svd_solver="randomized", random_state=seed)
    places = made.fit_transform(bits.astype(np.float32))
    first, second = 100 * made.explained_variance_ratio_
    return places, (
        f"By PCA of {of_what} ({bits.shape[1]:,} bits). The axes hold {first:.1f} % and "
        f"{second:.1f} % of the variance: molecules far apart here differ, those close together "
        "may differ in the rest. "
        "(UMAP is used in its place where umap-learn is installed.)"
    ), "Principal component"  # fmt: skip
