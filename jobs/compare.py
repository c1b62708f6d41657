"""Frozen against finetuned encoder over several seeds."""

import sys

from jobs.cli import main, say
from pipeline.comparison.settings import CompareSettings


def compare(settings: CompareSettings) -> None:
    """Run the comparison and print its summary."""
    from pipeline.comparison.run import run_comparison
    from pipeline.comparison.summary_text import summary_text

    summary = run_comparison(settings)
    say(
        f"encoder  {summary['encoder']} (weights: {summary['weights']})",
        f"data     {summary['dataset']}",
        "",
        summary_text(summary),
        f"outputs  {settings.output_dir}: comparison_summary.txt and .json, figures/",
    )


if __name__ == "__main__":
    sys.exit(main(CompareSettings, compare, "compare"))
