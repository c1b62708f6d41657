"""A small library of known and new molecules, and which molecules a checkpoint was made of."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipeline.molecules.identity import canonicalize
from tests.made_sets import hiv, moses, write_table

LIBRARY = [*moses()[100:160], "nonsense", *hiv()[:60], moses()[110], "", moses()[150]]
GOOD = [canonicalize(s) for s in LIBRARY if s and s != "nonsense"]


def write_library(home: Path) -> None:
    """`library.csv` with the columns `mol` and `smiles`."""
    write_table(home / "library.csv", mol=[f"l{i}" for i in range(len(LIBRARY))], smiles=LIBRARY)


def training_rows(home: Path, *roles: str, cross: bool = False) -> list[dict]:
    folder = home / ("checkpoint/cross" if cross else "checkpoint")
    rows = pq.read_table(folder / "training_molecules.parquet").to_pylist()
    return [row for row in rows if row["role"] in roles]
