"""A checkpoint and a library of any size to an energy and a p-value for each molecule."""

import sys

from jobs.cli import main, say
from pipeline.scoring.settings import ScoreSettings


def score(settings: ScoreSettings) -> None:
    """Score a library and say how much of it is OOD."""
    from pipeline.scoring.run import run_scoring

    summary = run_scoring(settings)
    share = summary["ood"] / max(1, summary["scored"])
    say(
        f"encoder     {summary['encoder']} (weights: {summary['weights']})",
        f"rows        {summary['rows_in']:,} in, {summary['scored']:,} scored, "
        f"{summary['rejected']:,} rejected",
        f"OOD         {summary['ood']:,} molecules ({100 * share:.1f} %) with p ≤ "
        f"{settings.alpha:g}, energy above {summary['energy_threshold']:.3f}, by "
        f"{summary['calibration_molecules']:,} ID validation molecules",
        f"this run    {summary['rows_of_this_run']:,} rows, "
        f"{summary['molecules_per_second']:.1f} a second",
        f"bound by    {summary['stages']['bound_by']}",
        f"outputs     {settings.output_dir}/scores",
    )


if __name__ == "__main__":
    sys.exit(main(ScoreSettings, score, "score"))
