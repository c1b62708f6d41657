"""Does generated data help to find a rare class? Beside copies, weights, SMOTE and a Gaussian."""

import sys

from jobs.cli import main, say
from pipeline.augmentation.settings import AugmentSettings


def augment(settings: AugmentSettings) -> None:
    """Compare methods, and say which of them help."""
    from pipeline.augmentation.run import run_augmentation
    from pipeline.augmentation.summary_text import summary_text

    folder, summary = settings.output_dir, run_augmentation(settings)
    say(
        *summary_text(summary),
        "",
        f"outputs    {folder}: augmentation_summary.txt and .json, augmentation_results.csv, "
        "differences.png",
    )


if __name__ == "__main__":
    sys.exit(main(AugmentSettings, augment, "augment"))
