"""Noise schedules and samplers, those of `diffusers`."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.generation.packages import package
from pipeline.generation.settings import DiffusionSettings

SCHEDULES = {"cosine": "squaredcos_cap_v2", "linear": "linear"}
PREDICTIONS = {"v": "v_prediction", "epsilon": "epsilon"}
# Ho et al. 2020 have 1000 steps; fewer steps of as much noise in all have more noise each.
LINEAR_STEPS, LINEAR_BETAS = 1000, (1e-4, 0.02)
# log(α/σ) at which few steps begin: what is before it is nearly noise alone. That of diffusers for
# its cosine schedule.
LEAST_LOG_SIGNAL_TO_NOISE = -5.1


def scheduler_of(settings: DiffusionSettings) -> Any:
    """A fresh scheduler of diffusers for the sampler that is set; it keeps state as it steps.

    Its steps are ours. diffusers' own, of a number of steps that does not divide all, lie apart by
    other distances than its DDIM scheduler goes, and some end below 0. DDIM is DPM-Solver++ of the
    first order (Lu et al. 2022, section 3.4), which goes from step to step.
    """
    if settings.sampler == "ddpm":
        made = package("diffusers").DDPMScheduler(**_common(settings), clip_sample=False)
    else:
        order = 1 if settings.sampler == "ddim" else 2
        made = package("diffusers").DPMSolverMultistepScheduler(
            **_common(settings), solver_order=order
        )
    made.set_timesteps(timesteps=steps_of(settings).tolist())
    return made


def steps_of(settings: DiffusionSettings) -> np.ndarray:
    """The diffusion steps that a sampler takes: different ones, falling to 0."""
    first = settings.diffusion_steps - 1
    if settings.sampler != "ddpm":
        signal, noise = levels(settings)
        first = int(np.flatnonzero(np.log(signal / noise) >= LEAST_LOG_SIGNAL_TO_NOISE)[-1])
    count = min(settings.steps_to_sample, first + 1)
    return np.linspace(first, 0, count).round().astype(int)


def levels(settings: DiffusionSettings) -> tuple[np.ndarray, np.ndarray]:
    """Shares (T,) float64 of the feature and of the noise after each step; squares add up to 1."""
    return _levels(_common(settings))


def _levels(schedule: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    kept = package("diffusers").DDPMScheduler(**schedule).alphas_cumprod.double().numpy()
    return np.sqrt(kept), np.sqrt(1 - kept)


def _common(settings: DiffusionSettings) -> dict[str, Any]:
    scale = LINEAR_STEPS / settings.diffusion_steps
    common = {
        "num_train_timesteps": settings.diffusion_steps,
        "beta_schedule": SCHEDULES[settings.noise_schedule],
        "beta_start": scale * LINEAR_BETAS[0],
        "beta_end": min(0.999, scale * LINEAR_BETAS[1]),
        "prediction_type": PREDICTIONS[settings.prediction],
    }
    if settings.noise_shift in (None, 1):
        return common
    signal, noise = _levels(common)
    kept = 1 / (1 + (settings.noise_shift * noise / signal) ** 2)
    return {**common, "trained_betas": 1 - kept / np.append(1.0, kept[:-1])}
