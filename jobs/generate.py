"""A table's features and classes to a diffusion model of them, and samples of each class."""

import sys
from typing import Any

from jobs.cli import main, say
from pipeline.generation.settings import GenerateSettings
from pipeline.runtime.text import aligned

MEASURES = {
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "told_apart_auroc": "told apart (AUROC)",
}


def generate(settings: GenerateSettings) -> None:
    """Train a generator, draw samples, and say what they are worth."""
    from pipeline.generation.run import run_generation

    summary = run_generation(settings)
    made, folder = summary["generator"], settings.output_dir
    losses = made["losses"]
    say(
        f"rows        {summary['rows_in']:,} in the file: {summary['rows_used']:,} used, "
        f"{summary['rows_of_other_splits']:,} of other splits, {summary['rejected']:,} rejected",
        *_repeats(summary["rows_that_repeat_another"]),
        f"generator   {made['parameters']:,} parameters on {made['learned_columns']:,} columns "
        f"({100 * made['variance_kept']:.1f} % of the variance), "
        f"{made['train_time_seconds']:.0f} s",
        f"learned     loss on rows it has not seen {losses['model']:.4f} (weights of step "
        f"{made['best_step']:,}); best linear guess {losses['linear']:.4f}, zero "
        f"{losses['zero']:.4f}",
        *([] if made["better_than_linear"] else [
            "            WARNING: no better than a Gaussian of each class; draw from that instead"
        ]),
        "",
        *_counts(summary["classes"]),
        *_measures(summary["measures"]),
        "",
        f"samples     {folder}/generated.parquet",
        f"generator   {folder}/generator",
        f"figures     {folder}/learning.png, quality.png, map.png",
    )  # fmt: skip


def _repeats(count: int) -> list[str]:
    if not count:
        return []
    return [f"            {count:,} have the features of another row; such rows stay together"]


def _counts(classes: dict[str, dict[str, int]]) -> list[str]:
    header = ("class", "asked", "returned", "shortfall", "candidates", "below threshold", "copies",
              "not needed")  # fmt: skip
    names = ("asked", "returned", "shortfall", "candidates", "below_threshold", "copies_refused",
             "passing_not_needed")  # fmt: skip
    drawn = {name: counts for name, counts in classes.items() if counts["asked"]}
    rows = [[name, *(f"{counts[each]:,}" for each in names)] for name, counts in drawn.items()]
    short = {name: counts for name, counts in drawn.items() if counts["shortfall"]}
    told = [
        f"WARNING: {counts['shortfall']:,} of {counts['asked']:,} samples of class {name} are "
        "missing: too few candidates were good enough, and none is filled in (see "
        "--quality_threshold, --sample_multiplier, --max_attempts)"
        for name, counts in short.items()
    ]
    return [*aligned(header, rows), *told]


def _measures(measured: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, samples in measured.items():
        sizes = [found["rows"] for found in samples.values() if found]
        if not sizes:
            lines += [
                "",
                f"class {name}: too few held-out rows (20 are needed) to compare samples with",
            ]
            continue
        rows = [
            [sample, *("too few" if found is None else f"{found[each]:.3f}" for each in MEASURES)]
            for sample, found in samples.items()
        ]
        header = (f"class {name}, {sizes[0]:,} rows each", *MEASURES.values())
        lines += ["", *aligned(header, rows)]
    return lines


if __name__ == "__main__":
    sys.exit(main(GenerateSettings, generate, "generate"))
