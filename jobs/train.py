"""Features (made if the store lacks them) to a trained energy head."""

import sys
from typing import Any

from jobs.cli import main, say
from pipeline.training.settings import TrainSettings


def train(settings: TrainSettings) -> None:
    """Train a head and say how it went."""
    from pipeline.training.run import run_training

    stats = run_training(settings)
    say(
        f"encoder     {stats['encoder']} (weights: {stats['weights']})",
        *_parameters(stats),
        f"trained     {stats['epochs']} epochs in {stats['train_time_seconds']:.2f} s "
        f"({1000 * stats['avg_epoch_time_seconds']:.1f} ms an epoch)",
        f"validation  AUROC {stats['best_val_auroc']:.4f} at epoch {stats['best_epoch']}",
        f"checkpoint  {settings.output_dir}/checkpoint",
    )


def _parameters(stats: dict[str, Any]) -> list[str]:
    if "cut" not in stats:
        return []
    trained, frozen = stats["encoder_parameters_trained"], stats["encoder_parameters_frozen"]
    trunk = "in the store" if stats["trunk_kept"] else "computed in every epoch"
    return [
        f"finetuned   {trained:,} encoder parameters, {frozen:,} frozen; trunk below layer "
        f"{stats['cut']} {trunk}"
    ]


if __name__ == "__main__":
    sys.exit(main(TrainSettings, train, "train"))
