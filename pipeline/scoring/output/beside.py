"""The most and least trustworthy molecules of a library beside their nearest training molecules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.kinds import SMILES, Kind
from pipeline.scoring.levels import SCORES

PICTURE, DRAWN = "beside_nearest.png", 5
KEPT = 100  # at either end, of which those are drawn that have different nearest molecules


@dataclass
class Trusted:
    """Both ends of a library that is gone through part by part, training molecules left out.

    They go by expected error where there is one, else by energy.

    Attributes
    ----------
    ends : by column (`expected_error`, `energy`), the least and the greatest rows.
    """

    ends: dict[str, tuple[pa.Table, pa.Table]] = field(
        default_factory=lambda: {
            name: (SCORES.empty_table(), SCORES.empty_table())
            for name in ("expected_error", "energy")
        }
    )

    def add(self, scores: pa.Table) -> None:
        """Take in a part, a table of SCORES."""
        new = scores.filter(pc.invert(scores["in_training"]))
        for name, (low, high) in self.ends.items():
            told = new.filter(new[name].is_valid())
            self.ends[name] = (
                end_of(pa.concat_tables([low, told]), KEPT, name, "ascending"),
                end_of(pa.concat_tables([high, told]), KEPT, name, "descending"),
            )

    def draw(self, output_dir: str, kind: Kind = SMILES) -> bool:
        """Write the picture of molecules of a kind; False if there is none to draw."""
        from pipeline.molecules.drawing.drawings import Pairs, pairs_figure  # imports matplotlib

        by = "expected_error" if self.ends["expected_error"][0].num_rows else "energy"
        low, high = (different(end.to_pylist()) for end in self.ends[by])
        if not low:
            return False
        titles = {
            "expected_error": ("Trust these first", "Do not trust these"),
            "energy": ("Most like the training set", "Least like the training set"),
        }[by]
        pairs_figure(
            "Left in each pair a molecule of the library, right the training molecule nearest to "
            "it; no training molecule twice on a side",
            [
                Pairs(title, [_pair(row, by, kind) for row in rows])
                for title, rows in zip(titles, (low, high))
            ],
            f"{output_dir}/{PICTURE}",
        )
        return True


def end_of(table: pa.Table, count: int, column: str, order: str) -> pa.Table:
    """The first `count` rows by a column, equal ones by id."""
    keys = [(column, order), ("id", "ascending")]
    return table.take(pc.select_k_unstable(table, k=min(count, table.num_rows), sort_keys=keys))


def different(rows: list[dict[str, Any]], most: int = DRAWN) -> list[dict[str, Any]]:
    """The first rows that have different nearest molecules; a series would fill the picture."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["nearest_smiles"] or row["id"], row)
    return list(first.values())[:most]


def _pair(row: Mapping[str, Any], by: str, kind: Kind) -> tuple[Any, Any]:
    from pipeline.molecules.drawing.drawings import Cell

    heading = f"energy {row['energy']:.3g}  (p = {row['p_value']:.2g})"
    if by == "expected_error":
        heading = f"predicted {row['prediction']:.3g}, error ≈ {row['expected_error']:.2g}"
    similarity = f"Tanimoto {row['nearest_similarity']:.2f}"
    return (
        Cell(row["smiles"], heading, row["id"], kind),
        Cell(row["nearest_smiles"], similarity, row["nearest_id"], kind),
    )
