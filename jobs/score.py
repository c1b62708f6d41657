"""A checkpoint and a library of any size to an energy and a p-value for each molecule."""

import sys
from typing import Any

from jobs.cli import main, say
from pipeline.scoring.settings import ScoreSettings

CALIBRATED_BY = {
    "id_cal": "molecules that training did not see",
    "id_val": "validation molecules, which chose the epoch: p-values are a little small",
}


def score(settings: ScoreSettings) -> None:
    """Score a library and say how much of it is OOD."""
    from pipeline.scoring.run import run_scoring

    tell_scores(run_scoring(settings), settings.output_dir)


def tell_scores(summary: dict[str, Any], output_dir: str) -> None:
    """Say what came of a library."""
    from pipeline.conformers.structure import structures_line

    removed = summary["fragments_removed"]
    share = summary["ood"] / max(1, summary["scored"])
    line = structures_line(summary["structures"])
    say(
        f"encoder     {summary['encoder']} (weights: {summary['weights']})",
        f"rows        {summary['rows_in']:,} in, {summary['scored']:,} scored, "
        f"{summary['rejected']:,} rejected",
        f"OOD         {summary['ood']:,} molecules ({100 * share:.1f} %) with p ≤ "
        f"{summary['alpha']:g}, energy above {summary['energy_threshold']:.3f}, by "
        f"{summary['calibration_molecules']:,} ID {CALIBRATED_BY[summary['calibrated_by']]}",
        f"known       {summary['in_training']:,} molecules are in the training set",
        f"this run    {summary['rows_of_this_run']:,} rows, "
        f"{summary['molecules_per_second']:.1f} a second",
        *([f"fragments   removed from {removed:,} molecules of this run"] if removed else []),
        f"bound by    {summary['stages']['bound_by']}",
        f"outputs     {output_dir}/scores",
        *([f"structures  {line}"] if line else []),
        *_repeated(**summary["repeated_ids"]),
    )


def _repeated(ids: int, rows: int, first: list[str]) -> list[str]:
    if not ids:
        return []
    more = ", …" if ids > len(first) else ""
    return [f"ids         {ids:,} repeat, in {rows:,} rows: {', '.join(first)}{more}"]


if __name__ == "__main__":
    sys.exit(main(ScoreSettings, score, "score"))
