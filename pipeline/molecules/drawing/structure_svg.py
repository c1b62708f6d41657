"""Drawings of molecules as SVG that a page's style sheet colours; no matplotlib."""

from __future__ import annotations

import re

from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

WIDTH, HEIGHT = 220, 160
# RDKit's colours of elements, by the name of the style sheet's variable: they must be told apart on
# dark pages too.
VARIABLES = {
    "#0000FF": "var(--atom-n)",
    "#3333FF": "var(--atom-n)",
    "#FF0000": "var(--atom-o)",
    "#33CCCC": "var(--atom-f)",
    "#00CC00": "var(--atom-cl)",
    "#7F4C19": "var(--atom-br)",
    "#A01EEF": "var(--atom-i)",
    "#FF7F00": "var(--atom-p)",
    "#CCCC00": "var(--atom-s)",
}
_COLOR = re.compile("#[0-9A-F]{6}")
# of bonds, and of letters
_PATH = re.compile(r"<path[^>]*? d='([^']*)' (?:style='([^']*)'|fill='([^']*)')")
_UNSEEN = re.compile(  # what is so by default, or where nothing is drawn
    r"(fill-rule:evenodd|stroke-linejoin:miter|stroke-opacity:1|fill-opacity:1|"
    r"stroke-linecap:butt|stroke-miterlimit:10|stroke:[^;]*;stroke-width:0(\.0)?px);?"
)


def structure_paths(smiles: str) -> str | None:
    """The inside of a molecule's SVG, in a box of WIDTH × HEIGHT.

    Colours are variables (VARIABLES), or else `currentColor`, so that the page chooses them.

    Returns
    -------
    str or None
        None if the SMILES cannot be drawn.
    """
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return None
    canvas = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT)
    options = canvas.drawOptions()
    options.clearBackground = False
    options.padding = 0.04
    options.bondLineWidth = 1.4
    try:
        rdMolDraw2D.PrepareAndDrawMolecule(canvas, molecule)
    except (ValueError, RuntimeError):  # as of molecules that RDKit cannot kekulize
        return None
    canvas.FinishDrawing()
    return _small(canvas.GetDrawingText())


def _small(drawing: str) -> str:
    """RDKit's drawing with one path a style and a digit after the point: a fifth of its size."""
    drawing = _COLOR.sub(lambda found: VARIABLES.get(found[0], "currentColor"), drawing)
    by_style: dict[str, list[str]] = {}
    for path, style, fill in _PATH.findall(drawing):
        style = _UNSEEN.sub("", style) or f"fill:{fill}"
        by_style.setdefault(style, []).append(_shorter(path))
    return "".join(
        f'<path d="{"".join(paths)}" style="{style}"/>' for style, paths in by_style.items()
    )


def _shorter(path: str) -> str:
    path = re.sub(r"(\d+\.\d)\d+", r"\1", path).replace(".0", "")
    path = re.sub(r"\s*([MLQCZ])\s*", r"\1", path)
    return re.sub(r"L([^LMQCZ]+)(L\1)+(?=[LMQCZ]|$)", r"L\1", path)  # rounded to the same point
