"""How learning rates fall over the epochs of a training."""

from __future__ import annotations

import math

from pipeline.runtime.train.learning_rate import Factor, warmed_up
from pipeline.training.settings import TrainSettings


def epoch_schedule(settings: TrainSettings, steps_per_epoch: int) -> Factor:
    """The schedule that the settings name; by whole epochs, whatever a batch holds."""

    def decay(step: int) -> float:
        epoch = step // steps_per_epoch
        if settings.lr_schedule == "cosine":
            return (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
        if settings.lr_schedule == "step":
            return settings.lr_decay ** (epoch // settings.lr_step_epochs)
        return 1.0

    return warmed_up(decay, settings.warmup_steps)
