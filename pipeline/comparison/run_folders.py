"""The runs of a comparison: where they lie, reading them, bringing them into one order."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import fsspec
import numpy as np

from pipeline.molecules.kinds import kind_of_columns
from pipeline.runtime.errors import InputError

FROZEN, FINETUNED = ARMS = ("frozen", "finetuned")


@dataclass(frozen=True, eq=False)
class Run:
    """One training and evaluation.

    Attributes
    ----------
    stats, results : training_stats.json and ood_evaluation_results.json.
    dynamics : one dict an epoch, the numeric columns of training_dynamics.csv.
    ids, smiles : n test molecules; ids are unique.
    is_ood : (n,) bool.
    energies : (n,) float, higher means more OOD.
    """

    arm: str
    seed: int
    stats: dict[str, Any]
    results: dict[str, Any]
    dynamics: list[dict[str, float]]
    ids: list[str]
    smiles: list[str]
    is_ood: np.ndarray
    energies: np.ndarray


def run_folder(output_dir: str, arm: str, seed: int) -> str:
    """Where the run of an arm with a seed lies within the comparison's folder."""
    return f"{output_dir}/{arm}/seed_{seed}"


def read_run(output_dir: str, arm: str, seed: int) -> Run:
    """Read a finished run from its folder under a path or URI.

    Raises
    ------
    InputError
        If a file of the run is missing.
    """
    folder = run_folder(output_dir, arm, seed)
    stats = json.loads(_text(f"{folder}/training_stats.json"))
    results = json.loads(_text(f"{folder}/ood_evaluation_results.json"))
    dynamics = _columns(_text(f"{folder}/training_dynamics.csv"))
    numeric = {name: values for name, values in map(_as_numbers, dynamics.items()) if values}
    predictions = _columns(_text(f"{folder}/detailed_predictions.csv"))
    return Run(
        arm,
        seed,
        stats,
        results,
        [dict(zip(numeric, epoch)) for epoch in zip(*numeric.values())],
        predictions["id"],
        predictions[kind_of_columns(list(predictions)).name],
        np.array(predictions["is_ood"], dtype=int).astype(bool),
        np.array(predictions["energy"], dtype=float),
    )


def align(runs: Sequence[Run]) -> list[Run]:
    """The runs with their test molecules in one order, that of their ids.

    Raises
    ------
    InputError
        If runs differ in their test molecules or in which of them are OOD.
    """
    aligned = []
    for run in runs:
        order = np.argsort(np.array(run.ids, dtype=object), kind="stable")
        aligned.append(
            replace(
                run,
                ids=[run.ids[i] for i in order],
                smiles=[run.smiles[i] for i in order],
                is_ood=run.is_ood[order],
                energies=run.energies[order],
            )
        )
    for run in aligned[1:]:
        _check_same_molecules(aligned[0], run)
    return aligned


def _text(uri: str) -> str:
    try:
        with fsspec.open(uri, "rb") as file:
            return file.read().decode()
    except FileNotFoundError:
        raise InputError(f"{uri}: not found; has this run finished?") from None


def _columns(text: str) -> dict[str, list[str]]:
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _as_numbers(column: tuple[str, list[str]]) -> tuple[str, list[float]]:
    """A column's values as numbers; no values where one is no number."""
    try:
        return column[0], [float(value) for value in column[1]]
    except ValueError:
        return column[0], []


def _check_same_molecules(first: Run, other: Run) -> None:
    names = " and ".join(f"{run.arm}/seed_{run.seed}" for run in (first, other))
    if first.ids != other.ids:
        ids = set(first.ids) ^ set(other.ids)
        raise InputError(
            f"{names} were tested on different molecules, {len(ids)} are in one of them only: "
            f"{', '.join(sorted(ids)[:3])}. Run both on the same data and data_seed"
        )
    labels = first.is_ood != other.is_ood
    if labels.any():
        raise InputError(
            f"{names} differ in which molecules are OOD: {labels.sum()} of {len(labels)}, such "
            f"as {first.ids[int(labels.argmax())]}. Run both on the same split"
        )
