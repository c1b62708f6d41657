"""What learning rates are multiplied by at each step of the optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.training.settings import TrainSettings

Factor = Callable[[int], float]


def warmed_up(decay: Factor, warmup_steps: int) -> Factor:
    """A linear rise from 0 over some steps, times a decay."""
    return lambda step: min(1.0, (step + 1) / max(1, warmup_steps)) * decay(step)


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


def linear_schedule(steps: int, warmup_share: float) -> Factor:
    """A rise over a share of all steps, then a linear fall to 0."""
    warmup = max(1, round(steps * warmup_share))
    return warmed_up(lambda step: min(1.0, (steps - step) / max(1, steps - warmup)), warmup)
