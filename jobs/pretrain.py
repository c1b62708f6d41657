"""Molecules without labels to pretrained Uni-Mol weights of one's own."""

import sys

from jobs.cli import main, say
from pipeline.pretraining.settings import PretrainSettings
from pipeline.runtime.text import aligned

LOSSES = {
    "loss": "loss",
    "token": "atom types (cross entropy)",
    "accuracy": "atom types (share told)",
    "coord": "coordinates (smooth L1)",
    "distance": "distances (smooth L1)",
}


def pretrain(settings: PretrainSettings) -> None:
    """Pretrain and say how it went."""
    from pipeline.pretraining.run import run_pretraining

    stats = run_pretraining(settings)
    rows = [
        [text, *(f"{stats[when][f'heldout_{name}']:.4f}" for when in ("before", "after"))]
        for name, text in LOSSES.items()
    ]
    say(
        f"molecules   {stats['molecules_trained_on']:,} trained on, "
        f"{stats['molecules_held_out']:,} held out, {stats['rejected']:,} of "
        f"{stats['rows_in']:,} rows rejected",
        f"model       {stats['parameters']:,} parameters",
        f"trained     {stats['steps']:,} steps in {stats['train_time_seconds']:.0f} s "
        f"({stats['molecules_per_second']:.0f} molecules/s)",
        "",
        *aligned(("held-out molecules", "before", "after"), rows),
        "",
        f"weights     {settings.output_dir}/model.pt; use them with --weights",
        f"curves      {settings.output_dir}/pretraining_curves.png, .csv",
    )


if __name__ == "__main__":
    sys.exit(main(PretrainSettings, pretrain, "pretrain"))
