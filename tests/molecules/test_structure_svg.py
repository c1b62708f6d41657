"""Drawings that a page's style sheet colours, against RDKit's own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D

from pipeline.molecules.drawing.structure_svg import HEIGHT, WIDTH, structure_paths

EVERY = "C[C@H](N)C(=O)Oc1c(F)c(Cl)c(Br)c(I)c1SP(C)[Si](C)(C)B.[Na+].[2H]*"


def subpaths(drawing: str) -> int:
    return sum(path.count("M") for path in re.findall(r" d=[\"']([^\"']*)", drawing))


def test_it_draws_all_that_rdkit_draws_and_leaves_colours_to_the_page():
    canvas = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT)
    canvas.drawOptions().clearBackground = False
    canvas.drawOptions().padding = 0.04
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, Chem.MolFromSmiles(EVERY))
    canvas.FinishDrawing()
    full, small = canvas.GetDrawingText(), structure_paths(EVERY)
    assert subpaths(small) == subpaths(full)  # bonds and letters
    assert len(small) < 0.6 * len(full)
    assert re.findall("#[0-9A-Fa-f]{6}", small) == []
    names = {"n", "o", "f", "cl", "br", "i", "s", "p"}
    assert set(re.findall(r"var\(--atom-(\w+)\)", small)) == names
    ElementTree.fromstring(f"<svg>{small}</svg>")


@pytest.mark.parametrize("smiles", ["nonsense", "c1ccc1C(", "C1CC"])
def test_what_cannot_be_drawn_is_none_and_silent(smiles, capfd):
    assert structure_paths(smiles) is None
    assert capfd.readouterr().err == ""
