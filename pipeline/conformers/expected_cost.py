"""How long RDKit will take over a molecule, guessed from its SMILES: to begin with the longest.

The formula is a least-squares fit of log seconds to 450 molecules of DTP's HIV screen (canonical
SMILES, ETKDGv3 + MMFF94, one core of an AMD EPYC). Of 250 molecules of a ChEMBL assay it explains
91 % of the variance of log seconds; counts of rings and of rotatable bonds added nothing.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# measured once, by hand; `tests` hold the counts, not the seconds
SCALE, POWER, AROMATIC = 6.6e-5, 2.214, 0.66


def atom_counts(smiles: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Atoms and, of these, aromatic ones without brackets, int64 (n,) each; nothing is parsed.

    Parameters
    ----------
    smiles : n of them, hydrogens not written out.
    """
    # an atom in brackets becomes *, since ring numbers, charges and isotopes stand there too
    plain = pc.replace_substring_regex(smiles, r"\[[^\]]*\]", "*")
    atoms = pc.count_substring_regex(plain, "Br|Cl|[A-Za-z*]")
    small = pc.count_substring_regex(plain, "[a-z]")
    halogens = pc.count_substring_regex(plain, "Br|Cl")
    return atoms.to_numpy().astype(np.int64), pc.subtract(small, halogens).to_numpy()


def conformer_seconds(smiles: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Seconds of one core that conformers may take, float64 (n,); right within a factor of two."""
    atoms, aromatic = atom_counts(smiles)
    share = aromatic / np.maximum(atoms, 1)
    return SCALE * np.maximum(atoms, 1.0) ** POWER * np.exp(-AROMATIC * share)
