"""Conformers in a file, so that a machine without RDKit can measure on them.

`python -m bench.cuda.molecules FILE` embeds molecules that ship with the repository.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from gzip import open as gzip_open
from pathlib import Path
from typing import Any

import numpy as np

from bench import SAMPLES

Conformer = tuple[np.ndarray, np.ndarray]
LISTS = ("moses.smi", "hiv.smi")
# Of the molecules listed first; larger ones take RDKit up to a minute each.
LISTED, COUNT, MOST_ATOMS = 2300, 1996, 45
# Very large ones with random coordinates, as their sizes matter alone; the last is cropped.
LARGE = (120, 200, 254, 297)


def read(path: str | Path) -> list[Conformer]:
    """Atomic numbers (N,) and coordinates (N, 3), Å, of each molecule."""
    kept = np.load(path)
    ends = np.cumsum(kept["sizes"])[:-1]
    return list(zip(np.split(kept["atoms"], ends), np.split(kept["coords"], ends)))


def _smiles(node: Any) -> Iterator[str]:
    """Every SMILES of a split file, in order."""
    if isinstance(node, dict) and "smiles" in node:
        yield node["smiles"]
    elif isinstance(node, dict | list):
        for part in node.values() if isinstance(node, dict) else node:
            yield from _smiles(part)


def _made(smiles: str) -> Conformer | None:
    from rdkit import Chem

    from pipeline.conformers.rdkit_embedder import embed
    from pipeline.runtime.errors import RowRejected

    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or molecule.GetNumAtoms() > MOST_ATOMS:
        return None
    try:
        made = embed(smiles)
    except RowRejected:
        return None
    return made.atoms, made.coords


def main() -> None:
    """Embed the molecules on all cores and write the file."""
    from rdkit import RDLogger

    RDLogger.DisableLog("rdApp.*")
    data = Path(__file__).parents[2] / "tests" / "data"
    listed = [line.split()[0] for name in LISTS for line in (data / name).read_text().splitlines()]
    listed += _smiles(json.loads(gzip_open(SAMPLES["scaffold"]).read()))
    with ProcessPoolExecutor() as pool:
        made = [m for m in pool.map(_made, list(dict.fromkeys(listed))[:LISTED], chunksize=4) if m][
            :COUNT
        ]
    random = np.random.default_rng(0)
    for size in LARGE:
        made.append((np.full(size, 6, np.uint8), random.normal(0, 5, (size, 3)).astype("f4")))
    atoms, coords = zip(*made)
    np.savez_compressed(
        sys.argv[1],
        sizes=np.array([len(a) for a in atoms]),
        atoms=np.concatenate(atoms),
        coords=np.concatenate(coords),
    )
    print(f"{len(made)} molecules of {min(map(len, atoms))} to {max(map(len, atoms))} heavy atoms")


if __name__ == "__main__":
    main()
