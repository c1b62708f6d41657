"""A scored library, read part by part: numbers of all new molecules, texts of some."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.kinds import SMILES, Kind
from pipeline.report.reading import Folder, read_parquet, rows_of
from pipeline.scoring.levels import SCORES
from pipeline.scoring.output.beside import Trusted
from pipeline.scoring.output.output_folder import part_files
from pipeline.scoring.steps import SCORES_FOLDER

NUMBERS = ("energy", "p_value", "nearest_similarity", "expected_error")


@dataclass(frozen=True)
class Scored:
    """Scores of n molecules, those of the training set left out.

    Attributes
    ----------
    in_training : molecules of the training set, left out of all else.
    numbers : of NUMBERS, float64 (n,); NaN where there is none.
    is_ood : (n,).
    sample : SCORES of some molecules, all of them if there are few, in order of the library.
    ends : the molecules at both ends.
    missing : columns that no part has, as of an earlier version.
    kind : of the molecules.
    """

    in_training: int
    numbers: dict[str, np.ndarray]
    is_ood: np.ndarray
    sample: pa.Table
    ends: Trusted
    missing: list[str]
    kind: Kind = SMILES

    @property
    def rows(self) -> int:
        """Molecules, n."""
        return len(self.is_ood)

    def has(self, number: str) -> bool:
        """Whether any molecule has that number."""
        return bool(np.isfinite(self.numbers[number]).any())


def read_scored(folder: Folder, most: int, seed: int, by: str = "energy") -> Scored:
    """Read `scores`.

    Parameters
    ----------
    most : molecules of the sample.
    by : the number that the ends go by, beside expected errors.

    Raises
    ------
    InputError
        If a part is damaged.
    """
    parts = part_files(folder.uri, SCORES_FOLDER)
    footers = [rows_of(folder.fs, part) for part in parts]
    sizes, kind = [rows for rows, _ in footers], footers[0][1] if footers else SMILES
    total = sum(sizes)
    places = np.random.default_rng(seed).choice(max(1, total), min(most, total), replace=False)
    drawn = np.sort(places)
    numbers, is_ood = {n: [np.zeros(0)] for n in NUMBERS}, [np.zeros(0, bool)]
    ends = Trusted({name: (SCORES.empty_table(),) * 2 for name in (by, "expected_error")})
    samples, there, in_training, start = [SCORES.empty_table()], set(), 0, 0
    for part, size in zip(parts, sizes):
        table = read_parquet(folder.fs, part, SCORES.names)
        there |= set(table.column_names)
        table = _complete(table)
        here = drawn[np.searchsorted(drawn, start) : np.searchsorted(drawn, start + size)]
        sample, table = _new(table.take(pa.array(here - start))), _new(table)
        in_training += size - table.num_rows
        for name, values in numbers.items():
            values.append(table[name].to_numpy().astype(float))
        is_ood.append(table["is_ood"].fill_null(False).to_numpy())
        samples.append(sample)
        ends.add(table)
        start += size
    missing = [name for name in SCORES.names if name not in there] if there else []
    return Scored(
        in_training, {name: np.concatenate(values) for name, values in numbers.items()},
        np.concatenate(is_ood), pa.concat_tables(samples), ends, missing, kind,
    )  # fmt: skip


def _new(table: pa.Table) -> pa.Table:
    return table.filter(pc.invert(table["in_training"].fill_null(False)))


def _complete(table: pa.Table) -> pa.Table:
    """The table with all columns of SCORES; those of no part are null."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type) if field.name != "in_training"
        else pa.repeat(False, table.num_rows)
        for field in SCORES
    ]  # fmt: skip
    return pa.table(columns, schema=SCORES)
