"""Proteins and peptides: which letters a sequence may have, and what makes two the same.

One-letter codes of IUPAC-IUB (1983). Upper and lower case, blanks and a stop at the end do not
count; a peptide's letters that stand for D-residues or modified ones are not told apart.
"""

from __future__ import annotations

import hashlib
import re
from string import ascii_lowercase, ascii_uppercase
from typing import Literal

from pipeline.runtime.errors import RowRejected

STANDARD = "ACDEFGHIKLMNPQRSTVWY"
EXTRA = "XUBZO"  # any, selenocysteine, D or N, E or Q, pyrrolysine
SHORTEST, LONGEST = 2, 1022  # ESM-2 was trained on 1,024 tokens, two of them its own
Residues = Literal["standard", "extended"]

_FOREIGN = {
    "standard": re.compile(f"[^{STANDARD}]"),
    "extended": re.compile(f"[^{STANDARD}{EXTRA}]"),
}
_INVISIBLE = re.compile(r"[\s\ufeff\u200b\u2060]+")  # blanks, byte order mark, zero-width blanks
_GAPS, _STOP = "-.", "*"
_UPPER = str.maketrans(ascii_lowercase, ascii_uppercase)  # of other letters: "ß".upper() is "SS"


def canonical_sequence(
    text: str | None,
    *,
    residues: Residues = "standard",
    min_length: int = SHORTEST,
    max_length: int = LONGEST,
) -> str:
    """A sequence in upper case, without blanks and without a stop at its end.

    Parameters
    ----------
    residues : "standard" for the letters of STANDARD, "extended" for those of EXTRA besides.
    min_length, max_length : residues that it must, and may, have.

    Raises
    ------
    RowRejected
        If it is empty, too short or too long, or has another letter, a gap or a stop within.
    """
    return tidied(text, residues=residues, min_length=min_length, max_length=max_length)[0]


def tidied(
    text: str | None,
    *,
    residues: Residues = "standard",
    min_length: int = SHORTEST,
    max_length: int = LONGEST,
) -> tuple[str, list[str]]:
    """As `canonical_sequence`, and what of the text was changed, blanks at its ends aside."""
    written = (text or "").strip()
    sequence = _INVISIBLE.sub("", written)
    changes = ["blanks"] if len(sequence) < len(written) else []
    if sequence.endswith(_STOP):
        sequence, changes = sequence[:-1], [*changes, "final stop"]
    if not sequence:
        raise RowRejected("empty sequence")
    upper = sequence.translate(_UPPER)
    if upper != sequence:
        changes.append("lower case")
    foreign = _FOREIGN[residues].search(upper)
    if foreign:
        _reject_letter(foreign[0], foreign.start() + 1)
    if len(upper) < min_length:
        raise RowRejected(f"sequence is too short: {len(upper)} (--min_length {min_length})")
    if len(upper) > max_length:
        raise RowRejected(f"sequence is too long: {len(upper):,} (--max_length {max_length})")
    return upper, changes


def _reject_letter(letter: str, position: int) -> None:
    """Reject a sequence for a letter; what differs from row to row stands after a colon."""
    if letter in _GAPS:
        why = "sequence has gaps, as in an alignment; leave them out"
    elif letter == _STOP:
        why = "sequence has a stop before its end"
    elif letter in EXTRA:
        why = f"sequence has a letter of {EXTRA}, which --residues extended takes"
    elif letter == "\ufffd":
        why = "sequence has bytes that are no UTF-8 text"
    else:
        why = "sequence has a letter that stands for no residue"
    raise RowRejected(f"{why}: {letter!r} at {position:,}")


def sequence_key(sequence: str) -> str:
    """32 hex digits that stand for a canonical sequence in the store.

    As `identity.molecule_key`, but in a domain of its own: CCC, three cysteines, is not propane.
    """
    return hashlib.blake2b(sequence.encode(), digest_size=16, person=b"sequence").hexdigest()
