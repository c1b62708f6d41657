"""The main job on the sample that ships with the repository, for two encoders."""

import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.cli import main, metric_cell, say, table
from pipeline.config import EvaluateSettings, OutputSettings, StoreSettings, TrainSettings

SAMPLE = Path(__file__).parent.parent / "data" / "hiv_scaffold_sample.json.gz"
ENCODERS = (("unimol", "untrained"), ("minimol", None))


@dataclass(frozen=True, kw_only=True)
class QuickstartSettings(StoreSettings, OutputSettings):
    """Encode the shipped HIV sample, train Energy-DPO on it, evaluate; print a table."""

    output_dir: str = "outputs/quickstart"
    """Folder for results, one subfolder an encoder."""
    data_file: str = str(SAMPLE)
    """Split file; default: the sample in data/."""


def quickstart(settings: QuickstartSettings) -> None:
    """Run both encoders and compare them."""
    from pipeline.evaluation import METRICS
    from pipeline.evaluation_run import run_evaluation
    from pipeline.experiment import run_training

    rows = []
    for model, weights in ENCODERS:
        folder = f"{settings.output_dir}/{model}"
        stats = run_training(
            TrainSettings(
                data_file=settings.data_file,
                foundation_model=model,
                weights=weights,
                sampling="all",
                cache_root=settings.cache_root,
                force_recompute_cache=settings.force_recompute_cache,
                retry_rejected=settings.retry_rejected,
                output_dir=folder,
            )
        )
        results = run_evaluation(
            EvaluateSettings(
                checkpoint=f"{folder}/checkpoint",
                cache_root=settings.cache_root,
                output_dir=folder,
            )
        )
        rate = stats["encoding_molecules_per_second"]
        rows.append(
            [
                f"{model} ({results['weights']})",
                *(metric_cell(results, name) for name in METRICS),
                f"{rate:.1f}" if rate else "in store",
                f"{1000 * stats['avg_epoch_time_seconds']:.0f}",
            ]
        )
    header = ["encoder (weights)", *map(str.upper, METRICS), "molecules/s", "ms/epoch"]
    say(
        "",
        table(header, rows),
        "",
        "Brackets: 95 % bootstrap intervals. Weights 'untrained' are seeded random numbers: they "
        "show that",
        "the pipeline runs, not what pretrained Uni-Mol can do.",
        f"Outputs: {settings.output_dir}/<encoder>/ood_evaluation_results.json, "
        "detailed_predictions.csv,",
        f"training_dynamics.csv, checkpoint/. Store: {settings.cache_root}",
    )


if __name__ == "__main__":
    sys.exit(main(QuickstartSettings, quickstart, "quickstart"))
