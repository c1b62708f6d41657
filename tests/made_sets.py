"""Small training sets with labels, molecules unlike them, and how detectors are trained on them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rdkit import Chem
from rdkit.Chem import Crippen

from pipeline.training.settings import TrainSettings

DATA = Path(__file__).parent / "data"
VIEWS = "ecfp,descriptors,distances"  # RDKit's alone, which take no time
INSIDE = 120  # molecules of the training set; more of the same kind are new


def moses() -> list[str]:
    """200 molecules of one kind: the first INSIDE are the training set."""
    return (DATA / "moses.smi").read_text().split()


def hiv() -> list[str]:
    """200 molecules of another kind."""
    return (DATA / "hiv.smi").read_text().split()


def values_of(smiles: Sequence[str]) -> list[float]:
    """A value for each molecule (its log P), which can be learned."""
    return [round(Crippen.MolLogP(Chem.MolFromSmiles(text)), 3) for text in smiles]


def write_table(path: Path, **columns: Sequence[Any]) -> Path:
    """A CSV file of some columns."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values()))
    return path


def write_set(folder: Path) -> Path:
    """The files `training.csv` (mol, smiles, y), `ood.csv` (smiles) and `library.csv`."""
    inside = moses()
    write_table(
        folder / "training.csv",
        mol=[f"t{i}" for i in range(INSIDE)], smiles=inside[:INSIDE], y=values_of(inside[:INSIDE]),
    )  # fmt: skip
    write_table(folder / "ood.csv", smiles=hiv()[:60])
    return folder


def train_settings(home: Path, name: str, **changes: Any) -> TrainSettings:
    """How a detector is trained on the set in a folder; outputs go to a folder of that name."""
    usual = {
        "id_file": str(home / "training.csv"), "ood_file": str(home / "ood.csv"), "views": VIEWS,
        "cache_root": str(home / "store"), "epochs": 3, "hidden_dim": 16, "device": "cpu",
    }  # fmt: skip
    return TrainSettings(output_dir=str(home / name), **{**usual, **changes})
