"""Scaffolds of a library by how many of their molecules lie outside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.molecules.splitting.domains import scaffold_domain
from pipeline.report.blocks import Cell, Table, count, number
from pipeline.report.figures.drawn import structure

SHOWN, LEAST = 30, 2  # scaffolds of the table; molecules of a scaffold


def scaffold_table(
    smiles: Sequence[str], is_ood: np.ndarray, energies: np.ndarray, total: int
) -> Table | None:
    """The most frequent scaffolds, those with the largest share outside first; None without any.

    Parameters
    ----------
    smiles, is_ood, energies : of n molecules.
    total : molecules that these were drawn from.
    """
    names, row_of = np.unique([scaffold_domain(text)[0] for text in smiles], return_inverse=True)
    sizes = np.bincount(row_of)
    outside = np.bincount(row_of, weights=is_ood)
    means = np.bincount(row_of, weights=energies) / sizes
    common = [i for i in np.argsort(-sizes, kind="stable")[:SHOWN] if sizes[i] >= LEAST]
    if not common:
        return None
    common.sort(key=lambda i: (-outside[i] / sizes[i], -sizes[i]))
    rows = []
    for i in common:
        name = str(names[i])
        rows.append(
            (
                Cell(name or "no ring", None, structure(name, name) if name else None),
                count(int(sizes[i])), count(int(outside[i])),
                Cell(f"{100 * outside[i] / sizes[i]:.0f} %", float(outside[i] / sizes[i])),
                number(float(means[i])),
            )
        )  # fmt: skip
    of = f"of {len(smiles):,} molecules drawn at random from {total:,}"
    of = of if len(smiles) < total else f"of all {total:,} molecules"
    once = int((sizes < LEAST).sum())
    caption = (
        f"Scaffolds by OOD share: the {len(rows)} most frequent of {len(names):,} ({once:,} occur "
        f"once), {of}"
    )
    header = ("Murcko scaffold", "Molecules", "Outside", "OOD share", "Mean energy")
    return Table(caption, header, rows, frozenset({1, 2, 3, 4}))
