"""Which molecules are in-distribution and which are not: DrugOOD's splits, roles, samples.

Follows DrugOOD (Ji et al., AAAI 2023): domains are sorted descending, the first 60 % of the
molecules by whole domains are in-distribution, the next 20 % are ood_val, the rest ood_test.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from pipeline.molecules.formats import SPLITS
from pipeline.molecules.settings import SplitSettings
from pipeline.runtime.errors import InputError

ID_CUT = ("train", "train", "train", "iid_val", "iid_test")  # 60/20/20, molecule by molecule


# --- making a split -----------------------------------------------------------------------


def scaffold_domain(smiles: str) -> tuple[str, float]:
    """The Murcko scaffold's SMILES and its number of atoms, DrugOOD's sorting value."""
    scaffold = MurckoScaffold.GetScaffoldForMol(Chem.MolFromSmiles(smiles))
    return Chem.MolToSmiles(scaffold), scaffold.GetNumAtoms()


def size_domain(smiles: str) -> tuple[str, float]:
    """The number of heavy atoms, as a domain and as its sorting value."""
    atoms = Chem.MolFromSmiles(smiles).GetNumHeavyAtoms()
    return str(atoms), atoms


def make_split(molecules: pa.Table, settings: SplitSettings) -> dict[str, Any]:
    """Cut molecules into a DrugOOD-format split.

    Parameters
    ----------
    molecules : `smiles`, `label` and, with `--by column`, `domain`; distinct molecules.

    Returns
    -------
    dict
        DrugOOD's JSON object: {"split": {"train": [...], ...}}, each item with `smiles`,
        `cls_label`, `reg_label`, `assay_id`, `domain_id`. Domain ids count from 0 in sorted
        order. The same input and settings give the same split.

    Raises
    ------
    InputError
        If a split would be empty, or a domain is missing.
    """
    rng = np.random.default_rng(settings.seed)
    if settings.max_molecules and settings.max_molecules < molecules.num_rows:
        kept = rng.choice(molecules.num_rows, settings.max_molecules, replace=False)
        molecules = molecules.take(np.sort(kept))
    names, order = _domains(molecules, settings)
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        members.setdefault(name, []).append(row)

    smiles = molecules["smiles"].to_pylist()
    labels = [None if x is None or math.isnan(x) else x for x in molecules["label"].to_pylist()]
    items: dict[str, list] = {split: [] for split in SPLITS}
    total, placed, id_rows = len(smiles), 0, 0
    for domain_id, name in enumerate(order):
        rows = members[name]
        if placed < settings.id_fraction * total:
            rng.shuffle(rows)
            targets = [ID_CUT[(id_rows + i) % len(ID_CUT)] for i in range(len(rows))]
            id_rows += len(rows)
        elif placed < (settings.id_fraction + settings.ood_val_fraction) * total:
            targets = ["ood_val"] * len(rows)
        else:
            targets = ["ood_test"] * len(rows)
        placed += len(rows)
        for row, split in zip(rows, targets):
            items[split].append(
                {
                    "smiles": smiles[row],
                    "cls_label": int(labels[row]) if _whole(labels[row]) else None,
                    "reg_label": labels[row],
                    "assay_id": name if settings.by == "column" else "",
                    "domain_id": domain_id,
                }
            )
    empty = [split for split in SPLITS if not items[split]]
    if empty:
        raise InputError(
            f"{settings.data_file}: {len(order)} domains over {total} molecules leave the split "
            f"{empty[0]} empty; split by something finer, or change --id_fraction"
        )
    return {"split": items}


def _domains(molecules: pa.Table, settings: SplitSettings) -> tuple[list[str], list[str]]:
    """Each molecule's domain, and the domains in the order in which they become ID."""
    if settings.by == "column":
        names = molecules["domain"].to_pylist()
        if None in names:
            raise InputError(
                f"{settings.data_file}: column {settings.column!r} is empty in "
                f"{names.count(None)} rows; drop or fill them"
            )
        if settings.column_order == "value":
            return names, sorted(set(names), key=_numeric_first)
        counts = Counter(names)
        return names, sorted(counts, key=lambda name: (-counts[name], name))
    domain_of = {"scaffold": scaffold_domain, "size": size_domain}[settings.by]
    domains = [domain_of(smiles) for smiles in molecules["smiles"].to_pylist()]
    return [name for name, _ in domains], [
        name for name, _ in sorted(set(domains), key=lambda domain: (-domain[1], domain[0]))
    ]


def _whole(label: float | None) -> bool:
    return label is not None and float(label).is_integer()


def _numeric_first(name: str) -> tuple[int, float, str]:
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)


# --- using a split ------------------------------------------------------------------------
