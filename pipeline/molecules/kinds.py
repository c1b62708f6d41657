"""The kinds of molecules that a source may hold, and what each is called where users read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa


class Kind(NamedTuple):
    """Molecules that are written in one way.

    Within the flow a molecule's text is the column `smiles`, whatever its kind; files that users
    see name it as the kind does (`named_for`). A text alone does not tell its kind: CCCC is butane
    and four cysteines.

    Attributes
    ----------
    name : what an encoder says that it takes, and the text's column in files.
    text : what one is written as.
    one, many : what rows are counted as.
    fingerprint : what molecules are likened by, see `fingerprints.fingerprints`.
    """

    name: str
    text: str
    one: str
    many: str
    fingerprint: str


SMILES = Kind("smiles", "SMILES", "molecule", "molecules", "ECFP4")
SEQUENCE = Kind("sequence", "a sequence", "sequence", "sequences", "k-mers")
KINDS = {kind.name: kind for kind in (SMILES, SEQUENCE)}
_NEAREST = "nearest_"


def named_for(table: pa.Table, kind: Kind) -> pa.Table:
    """A table as users see it: its columns `smiles`, `nearest_smiles` under the kind's name."""
    return table.rename_columns(names_for(table.column_names, kind))


def names_for(names: Sequence[str], kind: Kind) -> list[str]:
    """Names of the flow's columns as files of a kind have them."""
    return [_renamed(name, SMILES, kind) for name in names]


def unnamed(table: pa.Table) -> pa.Table:
    """The inverse of `named_for`, of a table that was read."""
    kind = kind_of_columns(table.column_names)
    return table.rename_columns([_renamed(name, kind, SMILES) for name in table.column_names])


def kind_of_columns(names: Sequence[str]) -> Kind:
    """The kind of the molecules in a file of ours, by its columns."""
    return SEQUENCE if SEQUENCE.name in names and SMILES.name not in names else SMILES


def _renamed(name: str, before: Kind, after: Kind) -> str:
    prefix = _NEAREST if name.startswith(_NEAREST) else ""
    return prefix + after.name if name == prefix + before.name else name
