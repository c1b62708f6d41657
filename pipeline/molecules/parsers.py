"""How a row's text becomes a molecule: one parser a kind of molecules, decided once a source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from rdkit.Chem import MolFromSmiles

from pipeline.molecules.features.fingerprints import packed_ecfp4_of, packed_kmers_of
from pipeline.molecules.folders import kind_of_source
from pipeline.molecules.identity import canonical_molecule, largest_fragment, molecule_key
from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind
from pipeline.molecules.sequences import LONGEST, SHORTEST, Residues, sequence_key, tidied
from pipeline.molecules.settings import LibrarySettings
from pipeline.runtime.errors import InputError, RowRejected


class Parsed(NamedTuple):
    """A molecule.

    Attributes
    ----------
    key : that stands for it in the store.
    text : its canonical form.
    fragments_removed : whether only the largest fragment of what was written was kept.
    tidied : what of the writing was put right, such as "lower case", in words; None for nothing.
    fingerprint : packed, if asked for; see `fingerprints.packed_fingerprints`.
    """

    key: str
    text: str
    fragments_removed: bool = False
    tidied: str | None = None
    fingerprint: bytes | None = None


class Parser(Protocol):
    """Reads texts of one kind of molecules; raises RowRejected with the reason for what is none."""

    kind: Kind

    def parse(self, text: str | None, coords: np.ndarray | None, fingerprint: bool) -> Parsed:
        """A row's text.

        Parameters
        ----------
        coords : (3N,) in Å, where they are part of the molecule.
        fingerprint : whether to make one.
        """
        ...


@dataclass(frozen=True)
class SmilesParser:
    """SMILES; see `identity.canonicalize`.

    Attributes
    ----------
    fragments : "keep", or "largest" to make each molecule its largest fragment.
    """

    fragments: str = "keep"
    kind: ClassVar[Kind] = SMILES

    def parse(
        self, text: str | None, coords: np.ndarray | None = None, fingerprint: bool = False
    ) -> Parsed:
        """See `Parser.parse`."""
        whole, molecule = canonical_molecule(text)
        canonical = largest_fragment(whole) if self.fragments == "largest" else whole
        lost = "." in whole and canonical != whole
        bits = None
        if fingerprint:
            bits = packed_ecfp4_of(MolFromSmiles(canonical) if lost else molecule)
        return Parsed(molecule_key(canonical, coords), canonical, lost, fingerprint=bits)


@dataclass(frozen=True)
class SequenceParser:
    """Sequences of amino acids; for the attributes see `sequences.canonical_sequence`."""

    residues: Residues = "standard"
    min_length: int = SHORTEST
    max_length: int = LONGEST
    kind: ClassVar[Kind] = SEQUENCE

    def parse(
        self, text: str | None, coords: np.ndarray | None = None, fingerprint: bool = False
    ) -> Parsed:
        """See `Parser.parse`; InputError if there are coordinates."""
        if coords is not None:
            raise InputError("sequences have no coordinates as those of an SDF")
        sequence, changes = tidied(
            text,
            residues=self.residues,
            min_length=self.min_length,
            max_length=self.max_length,
        )
        bits = packed_kmers_of(sequence) if fingerprint else None
        told = ", ".join(changes) or None
        return Parsed(sequence_key(sequence), sequence, tidied=told, fingerprint=bits)


def parser_of(settings: LibrarySettings) -> Parser:
    """The parser of a source's molecules; InputError as `kind_of_source`."""
    if kind_of_source(settings) is SMILES:
        return SmilesParser(settings.fragments)
    return SequenceParser(settings.residues, settings.min_length, settings.max_length)


def parsed_or_rejected(
    parser: Parser, text: str | None, coords: np.ndarray | None, fingerprint: bool
) -> Parsed | RowRejected:
    """What a text is, or why it is no molecule."""
    try:
        return parser.parse(text, coords, fingerprint)
    except RowRejected as rejection:
        return rejection
