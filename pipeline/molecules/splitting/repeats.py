"""Molecules that have several rows: one row for each, and what became of their labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.sources import labels_differ


class Distinct(NamedTuple):
    """A row for each molecule, in the order of first rows, and counts of what was merged.

    Attributes
    ----------
    repeated : rows that repeat a molecule; those dropped are not among them.
    several_rows, several_labels, several_domains : molecules with more than one of these.
    dropped_molecules, dropped_rows : left out, since their labels differ (--duplicates drop).
    """

    molecules: pa.Table
    repeated: int
    several_rows: int
    several_labels: int
    several_domains: int
    dropped_molecules: int
    dropped_rows: int


def distinct(molecules: pa.Table, settings: SplitSettings) -> Distinct:
    """One row for each molecule, its label as --duplicates says.

    Parameters
    ----------
    molecules : `key`, `label`, `domain` and others, of which the first row's stay.
    """
    keys = np.array(molecules["key"].to_pylist())
    labels = molecules["label"].to_numpy().copy()  # a missing one is NaN
    domains = molecules["domain"].to_pylist()
    kept = np.sort(np.unique(keys, return_index=True)[1])  # each molecule's first row
    dropped = []
    several_rows = several_domains = several_labels = 0
    for rows in _repeats(keys):
        found = labels[rows][~np.isnan(labels[rows])]
        differ = labels_differ(found)
        several_rows += 1
        several_labels += differ
        several_domains += len({domains[row] for row in rows}) > 1
        if differ and settings.duplicates == "drop":
            dropped.append(rows)
        elif len(found):  # where all agree, the first is their mean, without rounding
            mean = differ and settings.duplicates == "mean"
            labels[rows[0]] = found.mean() if mean else found[0]
    lost = np.concatenate(dropped) if dropped else np.array([], dtype=int)
    kept = kept[~np.isin(kept, lost)]
    place = molecules.column_names.index("label")
    column = pa.array(labels, pa.float64(), from_pandas=True)  # NaN is missing again
    return Distinct(
        molecules.set_column(place, "label", column).take(kept),
        molecules.num_rows - len(kept) - len(lost),
        several_rows, several_labels, several_domains, len(dropped), len(lost),
    )  # fmt: skip


def _repeats(keys: np.ndarray) -> Iterator[np.ndarray]:
    """The rows, rising, of each molecule that has several."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]])
    ends = np.r_[starts[1:], len(keys)]
    several = ends - starts > 1
    return (order[start:end] for start, end in zip(starts[several], ends[several]))
