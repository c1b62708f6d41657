"""The shortcut audit: a model's AUROC beside those of the cheapest methods that could win.

Two rivals are scored on the same test molecules: the best of the descriptors, chosen with its
direction on the molecules that training and validation saw, and the Tanimoto similarity to the
nearest ID training molecule. Where one of them does as well, the split says little about the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.metrics import auroc, compare_aurocs
from pipeline.molecules.features.descriptors import descriptor_names, descriptor_values
from pipeline.molecules.features.fingerprints import packed_fingerprints
from pipeline.molecules.features.neighbours import nearest
from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind

RIVALS = ("descriptor", "tanimoto")
LEAST_LEAD = 0.02  # in AUROC; a model that leads by less is warned of
# A file's training molecules may be millions. So many of each kind tell to about 0.01 in AUROC
# which descriptor is best (1 ms a molecule); among so many the nearest one is looked for.
CHOSEN_ON, SEARCHED = 1_000, 20_000
WITHOUT_OOD = (
    "the detector was trained with synthetic OOD features, so there are no OOD molecules by which "
    "to choose a descriptor"
)


def audit(
    training: pa.Table,
    smiles: Sequence[str],
    is_ood: np.ndarray,
    energies: np.ndarray,
    *,
    bootstrap_samples: int,
    seed: int,
    kind: Kind = SMILES,
) -> dict[str, Any]:
    """The rivals' AUROC on a test set, and the model's lead over them, ready for JSON.

    Parameters
    ----------
    training : `smiles` and `role` of the molecules that training and validation saw.
    smiles, is_ood, energies : of n test molecules; the model's energies, higher for OOD.
    bootstrap_samples, seed : of the intervals; the seed also draws from large training sets.
    kind : of the molecules, whose texts are in `smiles`.

    Returns
    -------
    dict
        `descriptor` and `tanimoto`, each with `auroc`, `lead` (the model's AUROC minus the
        rival's) and their intervals; `descriptors`, all of them; `chosen_on`; `warning`, None
        where the model leads by `LEAST_LEAD`. Only `not_made`, the reason, for a checkpoint of a
        version that did not keep SMILES, or that was trained without OOD molecules.
    """
    if "smiles" not in training.column_names:
        return {
            "not_made": "the checkpoint is of an earlier version, which did not keep the SMILES of "
            "its training molecules; train again"
        }
    if not pc.any(pc.starts_with(training["role"], "ood_")).as_py():
        return {"not_made": WITHOUT_OOD}
    found = find_rivals(training, smiles, is_ood, seed=seed, kind=kind)
    rivals = dict(zip(RIVALS, found.scores))
    compared = compare_aurocs(is_ood, energies, rivals, samples=bootstrap_samples, seed=seed)
    chosen = {key: found.descriptors[found.name][key] for key in ("ood_is", "training_auroc")}
    made = {
        "descriptor": {"name": found.name, **chosen, **compared["descriptor"]},
        "tanimoto": {
            "training_molecules": found.searched,
            "fingerprint": kind.fingerprint,
            **compared["tanimoto"],
        },
        "descriptors": found.descriptors,
        "chosen_on": found.chosen_on,
    }
    return {**made, "warning": warning_of(made, auroc(is_ood, energies))}


class Rivals(NamedTuple):
    """What needs no training, on a test set of n molecules.

    Attributes
    ----------
    name : of the descriptor that was chosen.
    scores : (n,) of the descriptor, and 1 − Tanimoto to the nearest training molecule; higher is
        OOD.
    descriptors : by descriptor `ood_is`, `training_auroc` and the test set's `auroc`.
    chosen_on : molecules of either kind by which the descriptor was chosen.
    searched : training molecules among which the nearest was looked for.
    """

    name: str
    scores: tuple[np.ndarray, np.ndarray]
    descriptors: dict[str, dict[str, Any]]
    chosen_on: dict[str, int]
    searched: int


def find_rivals(
    training: pa.Table, smiles: Sequence[str], is_ood: np.ndarray, *, seed: int,
    kind: Kind = SMILES,
) -> Rivals:  # fmt: skip
    """Choose the best descriptor on the molecules that training saw; score test molecules.

    Parameters
    ----------
    training, smiles, is_ood, seed, kind : as `audit`.
    """
    rng = np.random.default_rng(seed)
    roles = np.array(training["role"].to_pylist())
    of_role = np.array(training["smiles"].to_pylist(), dtype=object)
    id_rows, ood_rows = (
        _some(np.flatnonzero(np.isin(roles, [f"{kind}_train", f"{kind}_val"])), CHOSEN_ON, rng)
        for kind in ("id", "ood")
    )
    table = rank_descriptors(
        descriptor_values(of_role[id_rows], kind), descriptor_values(of_role[ood_rows], kind), kind
    )
    values = descriptor_values(smiles, kind)
    signs = np.array([1 if found["ood_is"] == "higher" else -1 for found in table.values()])
    for found, column in zip(table.values(), (values * signs).T):
        found["auroc"] = auroc(is_ood, column)
    name = max(table, key=lambda each: table[each]["training_auroc"])
    best = list(table).index(name)
    searched = _some(np.flatnonzero(roles == "id_train"), SEARCHED, rng)
    distances = distances_to_nearest(smiles, of_role[searched], kind)
    scores = (signs[best] * values[:, best], distances)
    counts = {"id": len(id_rows), "ood": len(ood_rows)}
    return Rivals(name, scores, table, counts, len(searched))


def rank_descriptors(
    id_values: np.ndarray, ood_values: np.ndarray, kind: Kind = SMILES
) -> dict[str, dict[str, Any]]:
    """How well each descriptor tells training molecules apart, and in which direction.

    Parameters
    ----------
    id_values, ood_values : of n and m training and validation molecules, by `descriptor_values`.

    Returns
    -------
    dict
        By descriptor `ood_is`, "higher" or "lower", and `training_auroc` in that direction.
    """
    is_ood = np.repeat([False, True], [len(id_values), len(ood_values)])
    table = {}
    for name, column in zip(descriptor_names(kind), np.concatenate([id_values, ood_values]).T):
        area = auroc(is_ood, column)
        direction = "higher" if area >= 0.5 else "lower"
        table[name] = {"ood_is": direction, "training_auroc": max(area, 1 - area)}
    return table


def distances_to_nearest(
    smiles: Sequence[str], references: Sequence[str], kind: Kind = SMILES
) -> np.ndarray:
    """1 − the largest Tanimoto similarity to any reference, by fingerprints: (n,)."""
    found = nearest(packed_fingerprints(smiles, kind), packed_fingerprints(references, kind))
    return 1 - found.similarity[:, 0].astype(float)


def _some(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def rival_name(made: dict[str, Any], rival: str) -> str:
    """What `descriptor` or `tanimoto` of an audit is, in words."""
    if rival == "tanimoto":
        told = made["tanimoto"].get("fingerprint")  # versions for SMILES alone did not say it
        if told == SEQUENCE.fingerprint:
            return f"Tanimoto by {told} to the nearest ID training sequence"
        return "Tanimoto to the nearest ID training molecule"
    return f"{made['descriptor']['name']} ({made['descriptor']['ood_is']} is OOD)"


def warning_of(made: dict[str, Any], model_auroc: float, model: str = "the model") -> str | None:
    """One sentence where the model does not lead both rivals by `LEAST_LEAD`."""
    best = max(RIVALS, key=lambda rival: made[rival]["auroc"])
    area = made[best]["auroc"]
    if model_auroc - area >= LEAST_LEAD - 1e-9:  # 0.82 − 0.80 is a little less than 0.02
        return None
    return (
        f"{rival_name(made, best)} alone has AUROC {area:.3f} on these molecules, {model} "
        f"{model_auroc:.3f}: this split says little about the model"
    )


def audit_lines(made: dict[str, Any]) -> list[str]:
    """An audit as lines for the user of one model."""
    if "not_made" in made:
        return [f"audit       not made: {made['not_made']}"]
    leads = [f"; the model's lead {_cell(made[rival], 'lead', '+')}" for rival in RIVALS]
    return [
        "audit       AUROC on these molecules of what needs no training:",
        *(f"{' ' * 10}{line}{lead}" for line, lead in zip(rival_lines(made), leads)),
        *([f"warning     {made['warning']}"] if made["warning"] else []),
    ]


def rival_lines(made: dict[str, Any]) -> list[str]:
    """A line for each rival: its AUROC and what it is."""
    return [f"  {_cell(made[rival], 'auroc')} {rival_name(made, rival)}" for rival in RIVALS]


def _cell(found: dict[str, Any], name: str, sign: str = "") -> str:
    low, high = found[f"{name}_ci95"]
    return f"{found[name]:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
