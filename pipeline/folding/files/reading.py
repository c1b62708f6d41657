"""Structure files that users have, PDB or mmCIF, to the backbones of their protein chains.

gemmi reads them. What a file may hold besides one clean chain is settled here, and told:

- of several models (NMR) the first counts;
- of alternate locations that with the highest occupancy, one for all three backbone atoms; so too
  of several residues at one place;
- the sequence is SEQRES, or mmCIF's entity; residues of it that were not observed have no
  coordinates. Without it, the sequence is that of the residues that are there;
- a modified residue counts as its parent (MSE as M), by the file (MODRES), else by gemmi's table of
  the PDB's components, else as X;
- caps of a chain's ends (ACE, NH2), which are no amino acids and have no Cα, are left out;
- chains that are not of L-amino acids are no protein chains;
- B-factors are pLDDT only where the file says that it is a prediction.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import fsspec
import numpy as np

from pipeline.folding.features import BACKBONE
from pipeline.folding.files.library import library
from pipeline.folding.files.plddt import Plddt, as_share
from pipeline.folding.files.residues import (
    Conformer,
    conformer,
    letter_of,
    parents_of,
    without_caps,
)
from pipeline.runtime.errors import RowRejected, reason_of

if TYPE_CHECKING:
    import gemmi

MMCIF = (".cif", ".mmcif")
ENDINGS = (".pdb", ".ent", *MMCIF)
ALPHAFOLD_NAME = re.compile(r"^AF-(?P<accession>[A-Z0-9]+(?:-\d+)?)-F(?P<part>\d+)-model_v\d+$")
PDB_NAME = re.compile(r"^pdb(\d\w{3})$")

# What of a chain was settled, as it is counted.
SEVERAL_MODELS = "the first of several models"
ALTERNATE = "alternate locations, the highest occupancy of each"
MODIFIED = "modified residues, as their parents, or X"
UNOBSERVED = "residues without coordinates"
CAPPED = "caps of the ends (ACE, NH2), left out"
NO_SEQRES = "no SEQRES: the sequence is that of the residues that are there"
NO_PLDDT = "B-factors that are no pLDDT"


@dataclass(frozen=True)
class Chain:
    """A protein chain of a file.

    Attributes
    ----------
    name : of the chain, the author's; of one with several polymers also mmCIF's: A/C.
    sequence : one letter a residue.
    backbone : (n, 3, 3), N, Cα, C in Å; NaN for atoms that are not there.
    plddt : (n,) of Cα, from 0 to 1; NaN where there is none.
    notes : what was settled, of the texts above.
    """

    name: str
    sequence: str
    backbone: np.ndarray
    plddt: np.ndarray
    notes: frozenset[str] = field(default_factory=frozenset)

    @property
    def observed(self) -> int:
        """Residues with a Cα."""
        return int(np.isfinite(self.backbone[:, 1, 0]).sum())


def is_structure_file(path: str) -> bool:
    """Whether a file's name is that of a structure, gzipped or not."""
    return _unpacked(path).endswith(ENDINGS)


def _unpacked(path: str) -> str:
    return path.lower().removesuffix(".gz")


def entry_of(path: str) -> str:
    """What a file is of, by its name: P12345 of AF-P12345-F1-model_v4.cif.gz, 1orc of pdb1orc.ent.

    A further part of an entry that AlphaFold DB has in several keeps the whole name.
    """
    stem = re.sub(r"\.gz$", "", path.rsplit("/", 1)[-1], flags=re.I).rsplit(".", 1)[0]
    if (found := ALPHAFOLD_NAME.match(stem)) and found["part"] == "1":
        return found["accession"]
    found = PDB_NAME.match(stem)
    return found[1] if found else stem


def read_bytes(uri: str) -> tuple[str, str]:
    """A file's text, unpacked, and the hex SHA-256 of the file as it is.

    Raises
    ------
    RowRejected
        If it cannot be read or unpacked.
    """
    try:
        fs, path = fsspec.url_to_fs(uri)
        packed = fs.cat_file(path)
        content = gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed
    except (OSError, EOFError, zlib.error) as error:
        raise RowRejected(f"the file cannot be read: {reason_of(error)}") from None
    return content.decode("utf-8", "replace"), hashlib.sha256(packed).hexdigest()


def protein_chains(text: str, name: str) -> tuple[list[Chain], dict[str, str]]:
    """The protein chains of a file, and why each other that is no water or ligand is none.

    Parameters
    ----------
    text, name : of a PDB or mmCIF file; its name tells which.

    Raises
    ------
    RowRejected
        If the file is not of its format, or holds no coordinates.
    """
    structure, plddt = _parsed(text, _unpacked(name).endswith(MMCIF))
    chains, others = [], {}
    common = frozenset([SEVERAL_MODELS] if len(structure) > 1 else [])
    for name, parts in _polymers(structure[0]):
        try:
            chains.append(_protein_chain(name, parts, structure, plddt, common))
        except RowRejected as rejection:
            others[name] = str(rejection)
    return chains, others


def _polymers(model: gemmi.Model) -> Iterator[tuple[str, list[gemmi.ResidueSpan]]]:
    """The model's polymers, by their chain; of a chain with several also by mmCIF's name.

    Others may stand between a polymer's parts.
    """
    is_polymer = library().EntityType.Polymer
    for chain in model:
        polymers: dict[str, list[gemmi.ResidueSpan]] = defaultdict(list)
        for span in chain.subchains():
            if span[0].entity_type == is_polymer:
                polymers[span.subchain_id()].append(span)
        for name, parts in polymers.items():
            yield f"{chain.name}/{name}" if len(polymers) > 1 else chain.name, parts


def _parsed(text: str, is_mmcif: bool) -> tuple[gemmi.Structure, Plddt]:
    gemmi = library()
    try:
        if is_mmcif:
            block = gemmi.cif.read_string(text)[0]
            structure = gemmi.make_structure_from_block(block)
        else:
            block, structure = None, gemmi.read_pdb_string(text)
        if len(structure) == 0 or structure[0].count_atom_sites() == 0:
            raise RowRejected("the file has no coordinates")
        structure.merge_chain_parts()
        structure.setup_entities()
        structure.assign_label_seq_id()
        return structure, Plddt.of(structure, block)
    except (ValueError, RuntimeError, IndexError) as error:
        kind = "mmCIF" if is_mmcif else "PDB"
        raise RowRejected(f"the file is no {kind} file: {reason_of(error)}") from None


def _protein_chain(
    chain: str, parts: list[gemmi.ResidueSpan], structure: gemmi.Structure, plddt: Plddt,
    notes: frozenset[str],
) -> Chain:  # fmt: skip
    """A polymer's backbone along its sequence; RowRejected of what is no protein."""
    kind, polymer = parts[0].check_polymer_type(), [each for part in parts for each in part]
    if kind != library().PolymerType.PeptideL:
        raise RowRejected(f"it is no protein chain: {kind.name}")
    every, told = _full_sequence(parts[0], structure), set()
    if every:
        there = _best(_places_by_label(polymer, every))
    else:
        there = _best(_places_as_they_come(polymer))
        every, told = [each.residue.name for each in there.values()], {NO_SEQRES}
    names, places = without_caps(every, there)
    if len(names) < len(every):
        told.add(CAPPED)
    parents = parents_of(structure)
    letters = [letter_of(name, parents) for name in names]
    backbone, confidence = np.full((len(names), 3, 3), np.nan), np.full(len(names), np.nan)
    for place, (atoms, residue, alternate) in places.items():
        for number, name in enumerate(BACKBONE):
            if name in atoms:
                backbone[place, number] = atoms[name].pos.tolist()
        if "CA" in atoms:
            confidence[place] = plddt.at(residue, atoms["CA"])
        told |= {ALTERNATE} if alternate else set()
    if any(modified for _, modified in letters):
        told.add(MODIFIED)
    if np.isnan(backbone[:, 1, 0]).any():
        told.add(UNOBSERVED)
    if not plddt:
        told.add(NO_PLDDT)
    sequence = "".join(letter for letter, _ in letters)
    return Chain(chain, sequence, backbone, as_share(confidence), notes | told)


def _best(places: dict[int, list[gemmi.Residue]]) -> dict[int, Conformer]:
    return {place: conformer(residues) for place, residues in places.items()}


def _full_sequence(polymer: gemmi.ResidueSpan, structure: gemmi.Structure) -> list[str]:
    """Names of all residues of the chain, observed or not; of several at a place the first."""
    entity = structure.get_entity_of(polymer)
    first = library().Entity.first_mon
    return [first(name) for name in entity.full_sequence] if entity is not None else []


def _places_by_label(
    polymer: Iterable[gemmi.Residue], names: list[str]
) -> dict[int, list[gemmi.Residue]]:
    """Residues by their place in the full sequence.

    Raises
    ------
    RowRejected
        If they do not fit it.
    """
    places: dict[int, list[gemmi.Residue]] = defaultdict(list)
    for residue in polymer:
        place = residue.label_seq
        if place is None or not 1 <= place <= len(names):
            raise RowRejected(
                f"a residue has no place in its chain's sequence: {residue.name} {residue.seqid}"
            )
        places[place - 1].append(residue)
    for place, residues in places.items():
        found = {residue.name for residue in residues}
        if names[place] not in found:
            raise RowRejected(
                "a residue is another in its chain's sequence (SEQRES): "
                f"{residues[0].name} {residues[0].seqid} instead of {names[place]}"
            )
    return places


def _places_as_they_come(polymer: Iterable[gemmi.Residue]) -> dict[int, list[gemmi.Residue]]:
    """Residues in the file's order, those of one number (a point mutation's two) at one place."""
    numbers: dict[str, int] = {}
    places: dict[int, list[gemmi.Residue]] = defaultdict(list)
    for residue in polymer:
        places[numbers.setdefault(str(residue.seqid), len(numbers))].append(residue)
    return places
