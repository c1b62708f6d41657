"""Residues of a structure file: their letters, and which of their alternate locations counts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from pipeline.folding.features import BACKBONE
from pipeline.folding.files.library import library

if TYPE_CHECKING:
    import gemmi

UNKNOWN = "X"
CAPS = ("ACE", "FOR", "NH2", "NME")  # also where they were not observed


class Conformer(NamedTuple):
    """One of a residue's alternate locations.

    Attributes
    ----------
    atoms : N, Cα and C by name, those that are there.
    residue : whose they are.
    alternate : whether there are others.
    """

    atoms: dict[str, gemmi.Atom]
    residue: gemmi.Residue
    alternate: bool


def conformer(residues: list[gemmi.Residue]) -> Conformer:
    """The backbone of highest occupancy at one place; of equal ones the first in the file."""
    options = list(_conformers(residues))
    atoms, residue = max(options, key=lambda option: sum(a.occ for a in option[0].values()))
    return Conformer(atoms, residue, len(options) > 1)


def _conformers(
    residues: list[gemmi.Residue],
) -> Iterator[tuple[dict[str, gemmi.Atom], gemmi.Residue]]:
    for residue in residues:
        atoms = [a for a in residue if a.name in BACKBONE and a.element.name in "NC"]
        for label in sorted({a.altloc for a in atoms} - {"\0"}) or ["\0"]:
            of_label = [a for a in atoms if a.altloc in ("\0", label)]
            yield {a.name: a for a in of_label}, residue


def without_caps(
    names: list[str], places: dict[int, Conformer]
) -> tuple[list[str], dict[int, Conformer]]:
    """Names of residues, and those observed by their place, without what caps the chain's ends.

    A cap is no amino acid and has no Cα: acetyl (ACE) before the first, amide (NH2) after the last.
    """

    def is_cap(place: int) -> bool:
        name = names[place]
        if place in places and "CA" in places[place].atoms:
            return False
        observed_other = place in places and not _is_amino_acid(name)
        return name in CAPS or observed_other

    first, end = 0, len(names)
    while first < end and is_cap(first):
        first += 1
    while end > first and is_cap(end - 1):
        end -= 1
    inside = {place - first: each for place, each in places.items() if first <= place < end}
    return names[first:end], inside


def _is_amino_acid(name: str) -> bool:
    return library().find_tabulated_residue(name).is_amino_acid()


def parents_of(structure: gemmi.Structure) -> dict[str, str]:
    """Names of modified residues' parents, as the file says."""
    return {
        each.res_id.name: each.parent_comp_id
        for each in structure.mod_residues
        if each.parent_comp_id
    }


def letter_of(name: str, parents: dict[str, str]) -> tuple[str, bool]:
    """A residue's letter, and whether it is a modified one's: its parent's, X if nobody knows."""
    known = _tabulated(name)
    if known.isupper() and known != UNKNOWN:
        return known, False
    parent = _tabulated(parents.get(name, "")).upper()
    return (known.upper() if parent == UNKNOWN else parent), True


@cache
def _tabulated(name: str) -> str:
    """gemmi's letter of an amino acid, in lower case of a modified one; X of what is unknown."""
    found = library().find_tabulated_residue(name)
    letter = found.one_letter_code
    return letter if found.is_amino_acid() and letter.isalpha() else UNKNOWN
