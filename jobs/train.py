"""Features (made if the store lacks them) to a trained energy head."""

import sys

from jobs.cli import main, say
from pipeline.config import TrainSettings


def train(settings: TrainSettings) -> None:
    """Train a head and say how it went."""
    from pipeline.experiment import run_training

    stats = run_training(settings)
    say(
        f"encoder     {stats['encoder']} (weights: {stats['weights']})",
        f"trained     {stats['epochs']} epochs in {stats['train_time_seconds']:.2f} s "
        f"({1000 * stats['avg_epoch_time_seconds']:.1f} ms an epoch)",
        f"validation  AUROC {stats['best_val_auroc']:.4f} at epoch {stats['best_epoch']}",
        f"checkpoint  {settings.output_dir}/checkpoint",
    )


if __name__ == "__main__":
    sys.exit(main(TrainSettings, train, "train"))
