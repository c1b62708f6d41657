"""The molecules of bench.trust: targets of a table, and their MiniMol features from the store."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.settings import EncodeSettings
from pipeline.molecules.identity import canonicalize, molecule_key


class Target(NamedTuple):
    """Molecules with canonical SMILES, each once, and their values (n,)."""

    name: str
    smiles: list[str]
    y: np.ndarray


def targets_of(table: Path) -> list[Target]:
    """Each target of a CSV with `smiles`, `target` and `y`; a molecule's first value counts."""
    values: dict[str, dict[str, float]] = {}
    with gzip.open(table, "rt") as file:
        for row in csv.DictReader(file):
            values.setdefault(row["target"], {}).setdefault(
                canonicalize(row["smiles"]), float(row["y"])
            )
    return [
        Target(name, list(of_target), np.array(list(of_target.values())))
        for name, of_target in sorted(values.items())
    ]


def features_of(targets: list[Target], table: Path, store: str) -> dict[str, np.ndarray]:
    """MiniMol features of all molecules by SMILES; those that the store lacks are made."""
    settings = EncodeSettings(
        data_file=str(table), foundation_model="minimol", precision="fp32", cache_root=store,
        output_dir=f"{store}/bench_trust",
    )  # fmt: skip
    smiles = sorted({each for target in targets for each in target.smiles})
    keys = [molecule_key(each) for each in smiles]
    kept = Tables.of(settings).features
    if (kept.index().find(keys) < 0).any():
        from pipeline.encoding.run import run_encoding  # starts Ray

        run_encoding(settings)
    return dict(zip(smiles, kept.read_features(keys)))
