"""Which molecules are in-distribution and which are not: DrugOOD's splits, roles, samples.

Follows DrugOOD (Ji et al., AAAI 2023): domains are sorted descending, the first 60 % of the
molecules by whole domains are in-distribution, the next 20 % are ood_val, the rest ood_test.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from pipeline.config import SamplingSettings, SplitSettings
from pipeline.errors import InputError
from pipeline.formats import SPLITS

log = logging.getLogger(__name__)

# Roles in an experiment, and the split of the file that each is taken from.
ROLES = {
    "id_train": "train",
    "id_val": "iid_val",
    "id_test": "iid_test",
    "ood_train": "ood_val",
    "ood_val": "ood_val",
    "ood_test": "ood_test",
}
SAMPLES = {"drugood": (2000, 600, 1000), "good": (5000, 1500, 2000), "all": (None, None, None)}
OOD_VAL_SHARE, OOD_VAL_MOST = 0.2, 3000
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


def assign_roles(
    molecules: pa.Table,
    settings: SamplingSettings,
    source: str,
    roles: Sequence[str] = tuple(ROLES),
) -> pa.Table:
    """Check a split file's molecules, give them their roles, and sample each role.

    Parameters
    ----------
    molecules : `id`, `key`, `smiles`, `split`, `label`, `domain`.
    source : the file's name, for messages.
    roles : those wanted; only their splits must have molecules.

    Returns
    -------
    pa.Table
        The sampled molecules with a column `role`, one of `ROLES`, in the order of roles. A
        role's sample does not depend on which other roles are wanted.

    Raises
    ------
    InputError
        If a split is absent or empty, or a molecule is in two splits.
    """
    check_overlap(molecules, allow=settings.allow_overlap, source=source)
    rows_of = {}
    splits = np.array(molecules["split"].fill_null("").to_pylist())
    for split in SPLITS:
        rows_of[split] = np.flatnonzero(splits == split)
        if len(rows_of[split]) == 0 and split in {ROLES[role] for role in roles}:
            raise InputError(
                f"{source}: the split {split} is empty; make a split with jobs.split, or name "
                "the column that holds it with --split_column"
            )
    validation = _cut_ood_val(molecules, rows_of["ood_val"], settings)
    rows_of_role = {role: rows_of[split] for role, split in ROLES.items()}
    rows_of_role["ood_val"] = validation
    rows_of_role["ood_train"] = np.setdiff1d(rows_of["ood_val"], validation)
    for role in ("ood_train", "ood_val"):
        if len(rows_of_role[role]) == 0 and role in roles:
            raise InputError(
                f"{source}: ood_val has too few domains or molecules to give {role} any; "
                "try --ood_val_by molecule"
            )
    pieces = []
    for number, role in enumerate(ROLES):
        rows, size = rows_of_role[role], sample_size(role, settings)
        if role not in roles:
            continue
        if size is not None and size < len(rows):
            rng = np.random.default_rng([settings.data_seed, number])
            rows = np.sort(rng.choice(rows, size, replace=False))
        pieces.append(molecules.take(rows).append_column("role", pa.array([role] * len(rows))))
    return pa.concat_tables(pieces)


def sample_size(role: str, settings: SamplingSettings) -> int | None:
    """Molecules that a role keeps at most; None for all."""
    position = ("train", "val", "test").index(role.split("_")[1])
    preset = SAMPLES[settings.sampling]
    sizes = [
        override or default
        for override, default in zip(
            (settings.train_size, settings.val_size, settings.test_size), preset
        )
    ]
    if settings.debug_dataset_size is None:
        return sizes[position]
    base = [size or fallback for size, fallback in zip(sizes, SAMPLES["drugood"])]
    return max(1, round(base[position] * min(1.0, settings.debug_dataset_size / base[0])))


def check_overlap(molecules: pa.Table, *, allow: bool, source: str) -> int:
    """Count the molecules that are in more than one split.

    Raises
    ------
    InputError
        If there are any and `allow` is False; the message shows the first few.
    """
    pairs = (
        molecules.select(["key", "split", "smiles"])
        .group_by(["key"])
        .aggregate([("split", "count_distinct"), ("split", "distinct"), ("smiles", "min")])
    )
    both = pairs.filter(pc.greater(pairs["split_count_distinct"], 1)).sort_by("smiles_min")
    if both.num_rows == 0:
        return 0
    shown = "; ".join(
        f"{row['smiles_min']} in {' and '.join(sorted(row['split_distinct']))}"
        for row in both.slice(0, 3).to_pylist()
    )
    message = f"{source}: {both.num_rows} molecules are in more than one split: {shown}"
    if not allow:
        raise InputError(f"{message}. Mend the split, or pass --allow_overlap to go on")
    log.warning("%s", message)
    return both.num_rows


def _cut_ood_val(molecules: pa.Table, rows: np.ndarray, settings: SamplingSettings) -> np.ndarray:
    """Rows of ood_val that become OOD validation: 20 %, 3000 at most, by whole domains."""
    if len(rows) == 0:
        return rows
    rng = np.random.default_rng([settings.data_seed, len(ROLES)])
    target = max(1, min(OOD_VAL_MOST, int(OOD_VAL_SHARE * len(rows))))
    domains = np.array(molecules["domain"].take(rows).fill_null("").to_pylist())
    if settings.ood_val_by == "domain" and (domains == "").any():
        log.warning("OOD validation is cut by molecules: some molecules have no domain")
    if settings.ood_val_by == "molecule" or (domains == "").any():
        return np.sort(rng.choice(rows, target, replace=False))
    names, sizes = np.unique(domains, return_counts=True)
    chosen, taken = [], 0
    for i in rng.permutation(len(names)):
        if taken + sizes[i] <= target:
            chosen.append(names[i])
            taken += sizes[i]
    if not chosen and len(names) > 1:  # every domain is larger than the target
        chosen = [names[np.argmin(sizes)]]
    return rows[np.isin(domains, chosen)]
