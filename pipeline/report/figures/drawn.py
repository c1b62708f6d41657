"""Molecules as the page draws them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from markupsafe import Markup

from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind
from pipeline.report.blocks import Drawn
from pipeline.report.templating import svg
from pipeline.runtime.text import shortened

log = logging.getLogger(__name__)


def structure(smiles: str, name: str) -> Markup | None:
    """A molecule's drawing; None if it cannot be drawn."""
    drawing = _drawing()
    paths = drawing and drawing.structure_paths(smiles)
    if not paths:
        return None
    return svg(
        "structure.svg", width=drawing.WIDTH, height=drawing.HEIGHT, name=name,
        paths=Markup(paths),  # RDKit's numbers and names of colours, no text of the user's
    )  # fmt: skip


def drawn(smiles: str, name: str | None, told: str, kind: Kind = SMILES) -> Drawn:
    """A molecule with what is said of it; long names are shortened in their middle.

    A sequence is not drawn, but written.
    """
    name = name or "(no id)"
    if kind == SEQUENCE:
        return Drawn(None, shortened(name), told, smiles, smiles)
    return Drawn(structure(smiles, name), shortened(name), told, smiles)


def beside_nearest(row: Mapping[str, Any], by: str, kind: Kind = SMILES) -> list[Drawn]:
    """A row of SCORES, and the training molecule nearest to it if that is known."""
    told = f"energy {_told(row['energy'], '.3g')}, p = {_told(row['p_value'], '.2g')}"
    if by == "expected_error":
        prediction, error = _told(row["prediction"], ".3g"), _told(row["expected_error"], ".2g")
        told = f"predicted {prediction}, error ≈\u00a0{error}"
    pair = [drawn(row["smiles"], row["id"], told, kind)]
    if row["nearest_smiles"]:
        similarity = f"Tanimoto {_told(row['nearest_similarity'], '.2f')}"
        pair.append(drawn(row["nearest_smiles"], row["nearest_id"], similarity, kind))
    return pair


def _told(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


@cache
def _drawing() -> ModuleType | None:
    """RDKit's drawing; a machine that cannot draw goes without, and says so once."""
    try:
        from pipeline.molecules.drawing import structure_svg
    except ImportError as error:
        log.warning(
            "no structures are drawn: %s. RDKit draws with X11's libraries, which slim images "
            "lack: on Debian and Ubuntu, apt-get install libxrender1 libxext6", error,
        )  # fmt: skip
        return None
    return structure_svg
