"""Drawings of molecules in a grid, and how a figure is written."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image
from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind
from pipeline.runtime.plots import save_figure
from pipeline.runtime.text import shortened

MOLECULES_A_ROW = 4
LINE, MOST_LETTERS = 20, 160  # of a sequence


class Cell(NamedTuple):
    """One molecule of a grid: its structure, what stands above it, and its id below.

    A sequence stands there as its letters.
    """

    smiles: str
    heading: str
    id: str
    kind: Kind = SMILES


class Pairs(NamedTuple):
    """Pairs of molecules of one kind, and what stands above them."""

    title: str
    pairs: Sequence[tuple[Cell, Cell]]


def molecules_figure(
    rows: Sequence[Mapping[str, Any]], title: str, path: str, kind: Kind = SMILES
) -> None:
    """Structures of scored molecules with their energies and p-values.

    Parameters
    ----------
    rows : `id`, `smiles`, `energy`, `p_value`; at least one.
    kind : of the molecules.
    """
    cells = [
        Cell(row["smiles"], f"{row['energy']:.3g}  (p = {row['p_value']:.2g})", row["id"], kind)
        for row in rows
    ]
    height = -(-len(cells) // MOLECULES_A_ROW)
    inches = 2.5 * height + 0.5
    figure = Figure(figsize=(2.6 * MOLECULES_A_ROW, inches))
    whole = figure.subfigures(1, 1)
    _lay_out(whole, inches, top=0.7)
    molecule_grid(whole, title, cells, height)
    save_figure(figure, path)


def molecule_grid(figure: SubFigure, title: str, cells: Sequence[Cell], rows: int) -> None:
    """Draw molecules in a grid of so many rows."""
    figure.suptitle(title, fontsize=12, fontweight="bold")
    every = figure.subplots(rows, MOLECULES_A_ROW, squeeze=False).ravel()
    for axes in every:
        axes.set_axis_off()
    for axes, cell in zip(every, cells):
        _draw(axes, cell)


def pairs_figure(title: str, columns: Sequence[Pairs], path: str) -> None:
    """Pairs of molecules, one below the other, in columns.

    Parameters
    ----------
    columns : at least one, with at least one pair among them.
    """
    rows = max(len(column.pairs) for column in columns)
    inches = 2.5 * rows + 0.8
    figure = Figure(figsize=(5.6 * len(columns), inches))
    figure.suptitle(title, fontsize=11, color="0.3", y=1 - 0.1 / inches)
    parts = figure.subfigures(1, len(columns), squeeze=False, wspace=0.06)[0]
    for part, column in zip(parts, columns):
        part.suptitle(column.title, fontsize=13, fontweight="bold", y=1 - 0.4 / inches)
        _lay_out(part, inches, top=1.0)
        grid = part.subplots(rows, 2, squeeze=False)
        for axes in grid.ravel():
            axes.set_axis_off()
        for both, pair in zip(grid, column.pairs):
            for axes, cell in zip(both, pair):
                _draw(axes, cell)
    save_figure(figure, path)


def _lay_out(figure: SubFigure, inches: float, top: float) -> None:
    """Place a grid by hand, with so many of its figure's inches above: a layout draws it twice."""
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.25 / inches, top=1 - top / inches, hspace=0.22, wspace=0.03
    )


def _draw(axes: Axes, cell: Cell) -> None:
    picture = None if cell.kind == SEQUENCE else _structure(cell.smiles)
    if cell.kind == SEQUENCE:
        axes.text(0.5, 0.5, _lines(cell.smiles), ha="center", va="center", family="monospace",
                  fontsize=8, transform=axes.transAxes, parse_math=False)  # fmt: skip
    elif picture is None:
        axes.text(0.5, 0.5, "no structure:\nSMILES not readable", ha="center", va="center",
                  color="0.4", transform=axes.transAxes)  # fmt: skip
    else:
        axes.imshow(picture)
    axes.set_title(cell.heading, fontsize=11, y=1.0)  # else it looks for room among all ticks
    axes.text(0.5, -0.02, shortened(cell.id), ha="center", va="top", fontsize=8,
              color="0.3", transform=axes.transAxes, parse_math=False)  # fmt: skip


def _lines(sequence: str) -> str:
    """A sequence in lines; of a long one the first and the last, and how long it is."""
    if len(sequence) > MOST_LETTERS:
        half, left = MOST_LETTERS // 2, len(sequence) - MOST_LETTERS
        parts = (*wrap(sequence[:half], LINE), f"… {left:,} more …", *wrap(sequence[-half:], LINE))
        return "\n".join(parts)
    return "\n".join(wrap(sequence, LINE))


def _structure(smiles: str) -> np.ndarray | None:
    """A molecule's drawing (height, width, 3 or 4) uint8, or None if the SMILES cannot be drawn."""
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return None
    canvas = rdMolDraw2D.MolDraw2DCairo(480, 360)
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, molecule)
    return np.asarray(Image.open(io.BytesIO(canvas.GetDrawingText())))
