"""Using a split: which molecules train, validate and test, and how many of each kind."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.reading.missing import is_missing
from pipeline.molecules.reading.raw_rows import SPLITS
from pipeline.molecules.settings import SamplingSettings
from pipeline.runtime.errors import InputError

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
# Besides: molecules of iid_val that calibrate p-values; nothing is fitted or chosen by them.
CALIBRATION = "id_cal"
OOD_SPLITS = {"ood_val", "ood_test"}
SAMPLES = {"drugood": (2000, 600, 1000), "good": (5000, 1500, 2000), "all": (None, None, None)}
OOD_VAL_SHARE, OOD_VAL_MOST = 0.2, 3000
CALIBRATION_SHARE, CALIBRATION_MOST = 0.25, 500
CUT_FROM = 400  # molecules of iid_val, all used, from which on some are kept for calibration


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
    roles : those wanted, of ROLES and CALIBRATION; only their splits must have molecules.

    Returns
    -------
    pa.Table
        The sampled molecules with a column `role`, in the order of roles. A role's sample does
        not depend on which other roles are wanted. There may be no molecules to calibrate with.

    Raises
    ------
    InputError
        If a split is absent or empty, or a molecule is in two splits.
    """
    check_overlap(molecules, allow=settings.allow_overlap, source=source)
    splits = np.array(molecules["split"].fill_null("").to_pylist())
    rows_of = {split: np.flatnonzero(splits == split) for split in SPLITS}
    _check_splits(rows_of, {ROLES[role] for role in roles if role in ROLES}, source)
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
    for number, (role, rows) in enumerate(rows_of_role.items()):
        size = sample_size(role, settings)
        if size is not None and size < len(rows):
            rng = np.random.default_rng([settings.data_seed, number])
            rows_of_role[role] = np.sort(rng.choice(rows, size, replace=False))
    rows_of_role["ood_train"] = _in_ratio(
        rows_of_role["ood_train"], len(rows_of_role["id_train"]), settings, source
    )
    rows_of_role |= _calibrating(rows_of_role["id_val"], rows_of["iid_val"], settings)
    pieces = [
        molecules.take(rows).append_column("role", pa.array([role] * len(rows), pa.string()))
        for role, rows in rows_of_role.items()
        if role in roles
    ]
    return pa.concat_tables(pieces)


def _in_ratio(
    ood: np.ndarray, id_count: int, settings: SamplingSettings, source: str
) -> np.ndarray:
    """The OOD training rows that --ood_ratio leaves, at least one."""
    if settings.ood_ratio is None or len(ood) == 0:
        return ood
    count = ood_wanted(settings.ood_ratio, id_count)
    if count > len(ood):
        log.warning(
            "%s: --ood_ratio %g asks for %s OOD training molecules, and there are %s", source,
            settings.ood_ratio, f"{count:,}", f"{len(ood):,}",
        )  # fmt: skip
        return ood
    rng = np.random.default_rng([settings.data_seed, len(ROLES) + 2])
    return np.sort(rng.choice(ood, count, replace=False))


def ood_wanted(ratio: float, id_count: int) -> int:
    """The OOD training molecules that --ood_ratio asks for beside so many ID ones."""
    return max(1, round(ratio * id_count))


def _calibrating(
    validation: np.ndarray, every: np.ndarray, settings: SamplingSettings
) -> dict[str, np.ndarray]:
    """Rows that validate and rows that calibrate.

    The latter are rows of iid_val that the sample leaves, as many as validate at most; where the
    sample is all of a large iid_val, a part of it.
    """
    rng = np.random.default_rng([settings.data_seed, len(ROLES) + 1])
    left = np.setdiff1d(every, validation)
    if len(left) == 0 and len(every) >= CUT_FROM:
        count = min(CALIBRATION_MOST, int(CALIBRATION_SHARE * len(every)))
        chosen = np.sort(rng.choice(every, count, replace=False))
        return {"id_val": np.setdiff1d(every, chosen), CALIBRATION: chosen}
    count = min(CALIBRATION_MOST, len(left), len(validation))
    return {"id_val": validation, CALIBRATION: np.sort(rng.choice(left, count, replace=False))}


def _check_splits(rows_of: dict[str, np.ndarray], wanted: set[str], source: str) -> None:
    """InputError if a split that is wanted has no molecules."""
    mend = "make a split with jobs.split, or name the column that holds it with --split_column"
    there = [split for split in SPLITS if len(rows_of[split])]
    if there and wanted & OOD_SPLITS and not OOD_SPLITS & set(there):
        told = f"the file has no OOD molecules, only {', '.join(there)}"
        raise InputError(f"{source}: {told}; {mend}")
    for split in SPLITS:
        if split in wanted and split not in there:
            raise InputError(f"{source}: the split {split} is empty; {mend}")


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
        molecules.select(["split", "smiles"])  # a key may stand for one structure of several
        .group_by(["smiles"])
        .aggregate([("split", "count_distinct"), ("split", "distinct")])
    )
    both = pairs.filter(pc.greater(pairs["split_count_distinct"], 1)).sort_by("smiles")
    if both.num_rows == 0:
        return 0
    shown = "; ".join(
        f"{row['smiles']} in {' and '.join(sorted(row['split_distinct']))}"
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
    names = molecules["domain"].take(rows).to_pylist()
    domains = np.array(["" if is_missing(name) else name for name in names])
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
