"""What makes two rows the same molecule: the canonical SMILES and its hash.

Atom-map numbers, the order of atoms and the way a SMILES is written do not count. Stereo, charges,
isotopes, protonation and all fragments do.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from rdkit import Chem, RDLogger

from pipeline.runtime.errors import RowRejected

# RDKit's time and memory grow with the square of it: a ring of 5,000 atoms takes 0.7 GB to parse,
# a chain of 100,000 more than a minute.
LONGEST_SMILES = 5000
SHOWN = 40  # characters of a text that a reason shows
_INVISIBLE = "\ufeff\u200b\u2060"  # byte order mark, zero-width blanks; str.strip leaves them
_ATOM_MAP = re.compile(r":\d+\]")
_MOST_FORMS = 50

RDLogger.DisableLog("rdApp.*")  # the reason for each rejected row is kept with the row


def canonicalize(smiles: str | None) -> str:
    """As `canonical_molecule`, without the molecule."""
    return canonical_molecule(smiles)[0]


def canonical_molecule(smiles: str | None) -> tuple[str, Chem.Mol]:
    """RDKit's canonical SMILES, which reading and writing again does not change, and as it is read.

    A CXSMILES extension (`CC |^1:0|`) counts as far as a plain SMILES can say what it says.
    Atom-map numbers are left out. Where RDKit writes another SMILES at each reading, it is read
    until one comes again, and of those that return in turn the first in text order counts.

    Raises
    ------
    RowRejected
        If the text is empty, has more than LONGEST_SMILES characters, a character that no SMILES
        has, or anything but an extension after a blank; if it does not parse or has no atoms; or
        if its canonical form does not parse.
    """
    written, extension = _parts(smiles)
    molecule = _parsed_with(written, extension) if extension else Chem.MolFromSmiles(written)
    if molecule is None:
        raise RowRejected("SMILES does not parse")
    if molecule.GetNumAtoms() == 0:
        raise RowRejected("molecule has no atoms")
    forms = [] if extension else [written]
    canonical = _without_maps(Chem.MolToSmiles(molecule))
    while canonical not in forms:
        if len(forms) == _MOST_FORMS:
            raise RowRejected("RDKit writes another canonical SMILES at each reading")
        forms.append(canonical)
        molecule = Chem.MolFromSmiles(canonical)
        if molecule is None:
            raise RowRejected(f"its canonical SMILES does not parse: {canonical}")
        canonical = Chem.MolToSmiles(molecule)
    first = min(forms[forms.index(canonical) :])
    return first, molecule if first == forms[-1] else Chem.MolFromSmiles(first)


def largest_fragment(canonical_smiles: str) -> str:
    """The canonical SMILES of the fragment that RDKit's LargestFragmentChooser takes.

    By the number of atoms (hydrogens too), then weight, then text. Charges stay as they are.
    """
    if "." not in canonical_smiles:
        return canonical_smiles
    chosen = _fragment_chooser().choose(Chem.MolFromSmiles(canonical_smiles))
    return canonicalize(Chem.MolToSmiles(chosen))


@cache
def _fragment_chooser():
    from rdkit.Chem.MolStandardize import rdMolStandardize  # seldom needed, slow to import

    return rdMolStandardize.LargestFragmentChooser()


def _parts(smiles: str | None) -> tuple[str, str]:
    """A cell's SMILES without atom maps, and its CXSMILES extension or nothing."""
    text = (smiles or "").strip().strip(_INVISIBLE).strip()
    if not text:
        raise RowRejected("empty SMILES")
    if len(text) > LONGEST_SMILES:
        raise RowRejected(f"SMILES has {len(text):,} characters, more than {LONGEST_SMILES:,}")
    written, *after = text.split(maxsplit=1)
    if not (text.isascii() and written.isprintable()):
        _reject_character(text)
    if not after:
        return _without_maps(written), ""
    extension, bar, rest = after[0][1:].partition("|")
    if after[0][0] != "|" or not bar:
        raise RowRejected(f"text after a blank: {_shown(after[0])}; a SMILES has no blanks")
    if rest.strip():
        raise RowRejected(f"text after the CXSMILES extension: {_shown(rest.strip())}")
    return _without_maps(written), f"|{extension}|"


def _reject_character(text: str) -> None:
    """Reject a text for its first character that is neither printable ASCII nor a blank."""
    for character in text:
        if character == "\ufffd":
            raise RowRejected("SMILES has bytes that are no UTF-8 text (shown as \ufffd)")
        if not character.isspace() and not (character.isascii() and character.isprintable()):
            name = unicodedata.name(character, "a control character")
            raise RowRejected(
                f"SMILES has the character {character!r} (U+{ord(character):04X}, {name})"
            )


def _parsed_with(written: str, extension: str) -> Chem.Mol | None:
    """The molecule of a CXSMILES; None if its SMILES does not parse."""
    reading = Chem.SmilesParserParams()
    reading.strictCXSMILES, reading.parseName = True, False
    molecule = Chem.MolFromSmiles(f"{written} {extension}", reading)
    if molecule is None and Chem.MolFromSmiles(written) is not None:
        raise RowRejected(f"CXSMILES extension does not parse: {_shown(extension)}")
    return molecule


def _without_maps(smiles: str) -> str:
    return _ATOM_MAP.sub("]", smiles) if ":" in smiles else smiles


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")


def molecule_key(canonical_smiles: str, coords: np.ndarray | None = None) -> str:
    """32 hex digits that stand for a molecule in the store: BLAKE2b of its canonical SMILES.

    Parameters
    ----------
    coords : (3N,) in Å, where they are part of the molecule (--structures file).
    """
    digest = hashlib.blake2b(canonical_smiles.encode(), digest_size=16)
    if coords is not None:
        digest.update(np.asarray(coords, "<f4").tobytes())
    return digest.hexdigest()


def sampled_atom_counts(smiles: Sequence[str], most: int, hydrogens: bool) -> np.ndarray:
    """Atoms of a seeded sample of molecules, none without any, as int64.

    Parameters
    ----------
    smiles : canonical; a list, or an Arrow column of text.
    most : molecules in the sample at most.
    hydrogens : count hydrogens too.
    """
    rows = np.random.default_rng(0).permutation(len(smiles))[:most]
    graphs = [Chem.MolFromSmiles(str(smiles[int(row)])) for row in rows]
    if hydrogens:
        counts = [Chem.AddHs(graph).GetNumAtoms() for graph in graphs]
    else:
        counts = [sum(a.GetAtomicNum() > 1 for a in graph.GetAtoms()) for graph in graphs]
    return np.array([count for count in counts if count], dtype=np.int64)
