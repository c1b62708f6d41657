"""How much noise hides half of what latents tell of their residues.

A latent of ESM-2 has many columns that say the same few things, so that a residue is told right
through noise of several deviations: in a schedule made for images nine of ten steps, and those of
samplers, would come after all residues are decided. Schedules are shifted for that (Hoogeboom et
al., simple diffusion, 2023, section 2.1, for larger images), here until the middle step has so much
noise as hides half.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from pipeline.generation.diffusion.noise import levels
from pipeline.generation.settings import DiffusionSettings
from pipeline.peptides.diffusion.residues import Peptides

RESIDUES = 20_000  # of all, at most: half to learn from, half to tell
LEAST, MOST, HALVINGS = 2.0**-2, 2.0**8, 9  # deviations of noise
DIGITS = 2


def shift_of(peptides: Peptides, settings: DiffusionSettings) -> float:
    """What to multiply a schedule's noise by; 1 where latents cannot say. Two digits."""
    level = half_told(peptides, settings.seed)
    if level is None:
        return 1.0
    signal, noise = levels(replace(settings, noise_shift=1.0))
    middle = settings.diffusion_steps // 2
    return float(f"{level * signal[middle] / noise[middle]:.{DIGITS}g}")


def half_told(peptides: Peptides, seed: int) -> float | None:
    """Deviations of noise with which single residues are told half as well as without.

    Half as well: right in half as many cases beyond those that the most frequent residue is right
    in. They are told by a linear discriminant, which knows how much noise there is.

    Parameters
    ----------
    peptides : their latents have unit variance in each column.

    Returns
    -------
    float or None
        None where there are too few residues, or but one kind, to learn from.
    """
    rng = np.random.default_rng([seed, RESIDUES])
    rows = rng.permutation(len(peptides.tokens))[:RESIDUES]
    latents, residues = peptides.latents[rows].astype(np.float64), peptides.tokens[rows]
    noise, half = rng.standard_normal(latents.shape), len(rows) // 2
    if len(np.unique(residues[:half])) < 2 or half < 2 * latents.shape[1]:
        return None

    def right(level: float) -> float:
        noisy = latents + level * noise
        told = LinearDiscriminantAnalysis(solver="lsqr").fit(noisy[:half], residues[:half])
        return told.score(noisy[half:], residues[half:])

    most_frequent = np.bincount(residues[half:]).max() / (len(rows) - half)
    wanted, low, high = (right(LEAST) + most_frequent) / 2, np.log2(LEAST), np.log2(MOST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if right(2**middle) > wanted else (low, middle)
    return float(2 ** ((low + high) / 2))
