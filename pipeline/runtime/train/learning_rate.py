"""What learning rates are multiplied by at each step of the optimiser."""

from __future__ import annotations

from collections.abc import Callable

Factor = Callable[[int], float]


def warmed_up(decay: Factor, warmup_steps: int) -> Factor:
    """A linear rise from 0 over some steps, times a decay."""
    return lambda step: min(1.0, (step + 1) / max(1, warmup_steps)) * decay(step)


def linear_schedule(steps: int, warmup_share: float) -> Factor:
    """A rise over a share of all steps, then a linear fall to 0."""
    warmup = max(1, round(steps * warmup_share))
    return warmed_up(lambda step: min(1.0, (steps - step) / max(1, steps - warmup)), warmup)
