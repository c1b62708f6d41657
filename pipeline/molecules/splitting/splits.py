"""Which molecules are in-distribution and which are not: DrugOOD's splits, roles, samples.

Follows DrugOOD (Ji et al., AAAI 2023): domains are sorted descending, the first 60 % of the
molecules by whole domains are in-distribution, the next 20 % are ood_val, the rest ood_test.
Clusters, which come in random order, are shared out instead between ood_val and ood_test.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.molecules.kinds import SMILES, Kind
from pipeline.molecules.reading.raw_rows import SPLITS
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.domains import domains_of
from pipeline.runtime.errors import InputError

ID_CUT = ("train", "train", "train", "iid_val", "iid_test")  # 60/20/20, molecule by molecule
ID_TENTHS = {"train": 7, "iid_val": 1, "iid_test": 2}  # of clusters, at random
PARTS = ("ID", "ood_val", "ood_test")


class Split(NamedTuple):
    """A split.

    Attributes
    ----------
    content : of its file.
    order : by which domains it was cut, in which order.
    parts : the domains of ID, ood_val and ood_test, in the order of their ids.
    """

    content: dict[str, Any]
    order: str
    parts: dict[str, list[str]]


def make_split(molecules: pa.Table, settings: SplitSettings, kind: Kind = SMILES) -> Split:
    """Cut molecules into a DrugOOD-format split.

    Parameters
    ----------
    molecules : `smiles`, `label` and, with `--by column` or `time`, `domain`; distinct molecules.

    Returns
    -------
    Split
        `content` is DrugOOD's JSON object: {"split": {"train": [...], ...}}, each item with
        `smiles` (or `sequence`), `cls_label`, `reg_label`, `assay_id`, `domain_id`. Domain ids
        count from 0 in sorted order. The same input and settings give the same split.

    Raises
    ------
    InputError
        If a split would be empty; for domains see `domains.domains_of`.
    """
    rng = np.random.default_rng(settings.seed)
    if settings.max_molecules and settings.max_molecules < molecules.num_rows:
        kept = rng.choice(molecules.num_rows, settings.max_molecules, replace=False)
        molecules = molecules.take(np.sort(kept))
    names, order, told = domains_of(molecules, settings, kind)
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        members.setdefault(name, []).append(row)

    parts = _parts(order, [len(members[name]) for name in order], settings)
    order = [name for part in PARTS for name in parts[part]]
    split_of = _cut([members[name] for name in parts["ID"]], settings, rng)
    for part in PARTS[1:]:
        split_of |= {row: part for name in parts[part] for row in members[name]}

    smiles = molecules["smiles"].to_pylist()
    labels = [None if x is None or math.isnan(x) else x for x in molecules["label"].to_pylist()]
    items: dict[str, list] = {split: [] for split in SPLITS}
    for domain_id, name in enumerate(order):
        for row in members[name]:
            items[split_of[row]].append(
                {
                    kind.name: smiles[row],
                    "cls_label": int(labels[row]) if _whole(labels[row]) else None,
                    "reg_label": labels[row],
                    "assay_id": name if settings.has_column else "",
                    "domain_id": domain_id,
                }
            )
    empty = [split for split in SPLITS if not items[split]]
    if empty:
        by_cluster = settings.by == "cluster"
        finer = "split by something finer"
        if by_cluster:
            finer = "pass more --clusters (or of sequences --identity), another --seed"
        raise InputError(
            f"{settings.data_file}: {len(order)} domains over {len(smiles)} molecules leave the "
            f"split {empty[0]} empty; {finer}, or change --id_fraction"
        )
    return Split({"split": items}, told, parts)


def _parts(order: list[str], sizes: list[int], settings: SplitSettings) -> dict[str, list[str]]:
    """The domains of each of PARTS.

    Parameters
    ----------
    sizes : molecules of each domain.
    """
    total = sum(sizes)
    placed = np.cumsum([0, *sizes])[:-1]  # molecules in the domains before each
    ids = int((placed < settings.id_fraction * total).sum())
    if settings.by == "cluster":
        share = settings.ood_val_fraction / (1 - settings.id_fraction)
        rest = _shared_out(sizes[ids:], share)
    else:
        border = (settings.id_fraction + settings.ood_val_fraction) * total
        rest = ["ood_val" if before < border else "ood_test" for before in placed[ids:]]
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for name, part in zip(order, ["ID"] * ids + rest):
        parts[part].append(name)
    return parts


def _shared_out(sizes: list[int], share: float) -> list[str]:
    """ood_val or ood_test for each cluster: the one that lacks more molecules of its share.

    Clusters differ so much in size that one of the two, filled after the other, may get too few.
    """
    lacking = {"ood_val": share * sum(sizes), "ood_test": (1 - share) * sum(sizes)}
    chosen = []
    for size in sizes:
        part = max(lacking, key=lambda name: lacking[name])
        lacking[part] -= size
        chosen.append(part)
    return chosen


def _cut(
    domains: list[list[int]], settings: SplitSettings, rng: np.random.Generator
) -> dict[int, str]:
    """Each ID molecule's split; shuffles the rows of domains that are cut one by one."""
    if settings.by == "cluster":
        rows = rng.permutation([row for rows in domains for row in rows])
        ends = np.cumsum(list(ID_TENTHS.values()))[:-1] * len(rows) // 10
        cut = zip(ID_TENTHS, np.split(rows, ends))
        return {row: split for split, some in cut for row in some.tolist()}
    for rows in domains:
        rng.shuffle(rows)
    places = enumerate(row for rows in domains for row in rows)
    return {row: ID_CUT[place % len(ID_CUT)] for place, row in places}


def _whole(label: float | None) -> bool:
    return label is not None and float(label).is_integer()
