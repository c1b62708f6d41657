"""The table of verdicts, and the levels that they go by."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

SCORES = pa.schema(
    [
        ("id", pa.string()),
        ("smiles", pa.string()),
        ("energy", pa.float64()),
        ("p_value", pa.float64()),
        ("is_ood", pa.bool_()),
        ("structure", pa.string()),
        ("in_training", pa.bool_()),
        ("nearest_id", pa.string()),
        ("nearest_smiles", pa.string()),
        ("nearest_similarity", pa.float32()),
        # null without an error model
        ("prediction", pa.float64()),
        ("expected_error", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("error_scale", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Levels:
    """What verdicts go by, beside the scores; see `relevelled`.

    Attributes
    ----------
    alpha : a molecule is OOD if its p-value is at most this.
    width : half the width of an interval, in units of `error_scale`; None without an error model.
    bounds : that intervals are clipped to: 0 and 1 of a probability, else none.
    """

    alpha: float
    width: float | None = None
    bounds: tuple[float, float] | None = None


def relevelled(scores: pa.Table, levels: Levels) -> pa.Table:
    """Scores with `is_ood`, `lower` and `upper` by other levels; nothing else is computed again."""
    changed = {"is_ood": pc.less_equal(scores["p_value"], levels.alpha)}
    if levels.width is not None:
        margin = pc.multiply(scores["error_scale"], levels.width)
        ends = {
            "lower": pc.subtract(scores["prediction"], margin),
            "upper": pc.add(scores["prediction"], margin),
        }
        if levels.bounds is not None:
            low, high = levels.bounds
            ends = {
                name: pc.min_element_wise(pc.max_element_wise(end, low, skip_nulls=False), high,
                                          skip_nulls=False)
                for name, end in ends.items()
            }  # fmt: skip
        changed |= ends
    for name, values in changed.items():
        scores = scores.set_column(scores.column_names.index(name), SCORES.field(name), values)
    return scores
