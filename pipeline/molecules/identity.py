"""What makes two rows the same molecule: the canonical SMILES and its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from rdkit import Chem, RDLogger

from pipeline.runtime.errors import RowRejected

# RDKit's time and memory grow with the square of it: a ring of 5,000 atoms takes 0.7 GB to parse,
# a chain of 100,000 more than a minute.
LONGEST_SMILES = 5000

RDLogger.DisableLog("rdApp.*")  # the reason for each rejected row is kept with the row


def canonicalize(smiles: str | None) -> str:
    """RDKit's canonical SMILES.

    Raises
    ------
    RowRejected
        If the text is empty, has more than LONGEST_SMILES characters, does not parse or has no
        atoms; or if its canonical form does not parse.
    """
    text = (smiles or "").strip()
    if not text:
        raise RowRejected("empty SMILES")
    if len(text) > LONGEST_SMILES:
        raise RowRejected(f"SMILES has {len(text):,} characters, more than {LONGEST_SMILES:,}")
    molecule = Chem.MolFromSmiles(text)
    if molecule is None:
        raise RowRejected("SMILES does not parse")
    if molecule.GetNumAtoms() == 0:
        raise RowRejected("molecule has no atoms")
    canonical = Chem.MolToSmiles(molecule)
    if Chem.MolFromSmiles(canonical) is None:
        raise RowRejected(f"its canonical SMILES {canonical} does not parse")
    return canonical


def molecule_key(canonical_smiles: str) -> str:
    """32 hex digits that stand for a molecule in the store: BLAKE2b of its canonical SMILES."""
    return hashlib.blake2b(canonical_smiles.encode(), digest_size=16).hexdigest()


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
