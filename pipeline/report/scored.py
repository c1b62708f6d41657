"""A scored library, read part by part: numbers of all rows, texts of some."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.report.reading import Folder, read_parquet, rows_of
from pipeline.runtime.errors import InputError
from pipeline.scoring.beside import Trusted
from pipeline.scoring.levels import SCORES
from pipeline.scoring.output_folder import part_files
from pipeline.scoring.steps import SCORES_FOLDER

NUMBERS = ("energy", "p_value", "nearest_similarity", "expected_error", "lower", "upper")
FLAGS = ("is_ood", "in_training")


@dataclass(frozen=True)
class Scored:
    """Scores of n molecules.

    Attributes
    ----------
    numbers : of NUMBERS, float64 (n,); NaN where there is none.
    flags : of FLAGS, bool (n,).
    sample : SCORES of some molecules, all of them if there are few, in order of the library.
    ends : the molecules at both ends.
    missing : columns that no part has, as of an earlier version.
    """

    numbers: dict[str, np.ndarray]
    flags: dict[str, np.ndarray]
    sample: pa.Table
    ends: Trusted
    missing: list[str]

    @property
    def rows(self) -> int:
        """Molecules."""
        return len(self.flags["is_ood"])

    def has(self, number: str) -> bool:
        """Whether any molecule has that number."""
        return bool(np.isfinite(self.numbers[number]).any())


def read_scored(folder: Folder, most: int, seed: int) -> Scored:
    """Read `scores`.

    Parameters
    ----------
    most : molecules of the sample.

    Raises
    ------
    InputError
        If there are no scores, or a part is damaged.
    """
    parts = part_files(folder.uri, SCORES_FOLDER)
    sizes = [rows_of(folder.fs, part) for part in parts]
    total = sum(sizes)
    if not total:
        raise InputError(f"{folder.uri}/{SCORES_FOLDER} holds no scores")
    drawn = np.sort(np.random.default_rng(seed).choice(total, min(most, total), replace=False))
    numbers, flags = {n: [] for n in NUMBERS}, {n: [] for n in FLAGS}
    samples, ends, there, start = [], Trusted(), set(), 0
    for part, size in zip(parts, sizes):
        table = read_parquet(folder.fs, part, SCORES.names)
        there |= set(table.column_names)
        table = _complete(table)
        for name, values in numbers.items():
            values.append(table[name].to_numpy().astype(float))
        for name, values in flags.items():
            values.append(table[name].fill_null(False).to_numpy())
        here = drawn[np.searchsorted(drawn, start) : np.searchsorted(drawn, start + size)]
        samples.append(table.take(pa.array(here - start)))
        ends.add(table)
        start += size
    return Scored(
        {name: np.concatenate(values) for name, values in numbers.items()},
        {name: np.concatenate(values) for name, values in flags.items()},
        pa.concat_tables(samples), ends, [name for name in SCORES.names if name not in there],
    )  # fmt: skip


def _complete(table: pa.Table) -> pa.Table:
    """The table with all columns of SCORES; those of no part are null."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type) if field.name != "in_training"
        else pa.repeat(False, table.num_rows)
        for field in SCORES
    ]  # fmt: skip
    return pa.table(columns, schema=SCORES)
