"""Noise schedules and samplers, those of `diffusers`."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.generation.settings import GeneratorSettings
from pipeline.runtime.errors import InputError

SCHEDULES = {"cosine": "squaredcos_cap_v2", "linear": "linear"}
PREDICTIONS = {"v": "v_prediction", "epsilon": "epsilon"}
# Ho et al. 2020 have 1000 steps; fewer steps of as much noise in all have more noise each.
LINEAR_STEPS, LINEAR_BETAS = 1000, (1e-4, 0.02)
# diffusers asks for this with its cosine schedule, whose last steps are nearly noise alone.
LEAST_LOG_SIGNAL_TO_NOISE = -5.1


def diffusers() -> Any:
    """The module. InputError if it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise InputError(
            "generators need diffusers; install it by: pip install 'molsieve[generation]'"
        ) from None
    return diffusers


def scheduler_of(settings: GeneratorSettings) -> Any:
    """A fresh scheduler of diffusers for the sampler that is set; it keeps state as it steps."""
    scale = LINEAR_STEPS / settings.diffusion_steps
    common = {
        "num_train_timesteps": settings.diffusion_steps,
        "beta_schedule": SCHEDULES[settings.noise_schedule],
        "beta_start": scale * LINEAR_BETAS[0],
        "beta_end": min(0.999, scale * LINEAR_BETAS[1]),
        "prediction_type": PREDICTIONS[settings.prediction],
    }
    if settings.sampler == "dpm++":
        clipped = LEAST_LOG_SIGNAL_TO_NOISE if settings.noise_schedule == "cosine" else -np.inf
        made = diffusers().DPMSolverMultistepScheduler(
            **common, timestep_spacing="trailing", lambda_min_clipped=clipped
        )
    else:
        kind = "DDIMScheduler" if settings.sampler == "ddim" else "DDPMScheduler"
        made = getattr(diffusers(), kind)(**common, timestep_spacing="trailing", clip_sample=False)
    made.set_timesteps(settings.steps_to_sample)
    return made


def levels(settings: GeneratorSettings) -> tuple[np.ndarray, np.ndarray]:
    """Shares (T,) float64 of the feature and of the noise after each step; squares add up to 1."""
    kept = scheduler_of(settings).alphas_cumprod.double().numpy()
    return np.sqrt(kept), np.sqrt(1 - kept)
