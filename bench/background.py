"""Chooses the background molecules that come with MolSieve; see their README.

python -m bench.background HIV.csv.gz MUV.csv.gz
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import Chem, rdBase

from pipeline.molecules.features.fingerprints import packed_ecfp4
from pipeline.molecules.features.neighbours import nearest
from pipeline.molecules.identity import canonicalize
from pipeline.runtime.errors import RowRejected

OUT = Path("pipeline/molecules/background/background.smi.gz")
MOLECULES, DRAWN, SEED = 2000, 12_000, 42
HEAVY_ATOMS, MOST_ALIKE = (10, 50), 0.5
ELEMENTS = {"B", "Br", "C", "Cl", "F", "I", "N", "O", "P", "S", "Si"}


def wanted(smiles: str) -> bool:
    """Whether a molecule is one fragment of organic elements and of a drug's size."""
    atoms = Chem.MolFromSmiles(smiles).GetAtoms()
    in_bounds = HEAVY_ATOMS[0] <= len(atoms) <= HEAVY_ATOMS[1]
    return "." not in smiles and in_bounds and {a.GetSymbol() for a in atoms} <= ELEMENTS


def main(files: list[str]) -> None:
    """Half of each file: drawn at random, none alike another one by more than MOST_ALIKE."""
    rng = np.random.default_rng(SEED)
    chosen: list[str] = []
    bits = np.zeros((0, 256), np.uint8)
    for number, file in enumerate(files, start=1):
        table = pd.read_csv(file)
        for smiles in table["smiles"].take(rng.permutation(len(table))[:DRAWN]):
            try:
                with rdBase.BlockLogs():
                    smiles = canonicalize(smiles)
            except RowRejected:
                continue
            if not wanted(smiles):
                continue
            mine = packed_ecfp4([smiles])
            if len(bits) and nearest(mine, bits, 1, threads=1).similarity[0, 0] > MOST_ALIKE:
                continue
            chosen.append(smiles)
            bits = np.concatenate([bits, mine])
            if len(chosen) == MOLECULES * number // len(files):
                break
    OUT.parent.mkdir(exist_ok=True)
    text = "".join(f"{smiles} background{i}\n" for i, smiles in enumerate(chosen, start=1))
    OUT.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{len(chosen):,} molecules in {OUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
