"""How much noise hides half of what latents tell, against what a Gaussian's formula says."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from pipeline.generation.diffusion.noise import levels
from pipeline.peptides.diffusion.half_told import half_told, shift_of
from pipeline.peptides.diffusion.residues import Peptides
from tests.peptides.conftest import SETTINGS, peptides_of


@pytest.mark.parametrize("columns", [4, 64])
def test_columns_that_say_the_same_of_two_residues(columns):
    """Means ±1 in d columns with noise of σ are told right in Φ(√d / σ) of cases; half is 3/4."""
    tokens = np.random.default_rng(0).integers(2, size=20_000).astype(np.uint8)
    latents = np.repeat(2.0 * tokens[:, None] - 1, columns, axis=1)
    made = Peptides(latents, tokens, np.array([0, len(tokens)]), np.array([0]))
    expected = np.sqrt(columns) / NormalDist().inv_cdf(3 / 4)
    assert half_told(made, 0) == pytest.approx(expected, rel=0.05)


def test_a_training_takes_it_and_keeps_it(trained, made_up):
    kept = trained[0].generator.settings
    assert SETTINGS.noise_shift is None and kept.noise_shift == shift_of(made_up[0], kept)


def test_where_nothing_can_be_learned_the_schedule_is_left_as_it_is():
    some = peptides_of(40, 1)[0]
    same = some._replace(tokens=np.zeros_like(some.tokens))
    assert half_told(same, 0) is None and shift_of(same, SETTINGS) == 1
    few = some._replace(tokens=np.arange(8, dtype=np.uint8), latents=some.latents[:8])
    assert half_told(few, 0) is None


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_middle_step_has_so_much_noise(made_up, schedule):
    settings = replace(SETTINGS, noise_schedule=schedule)
    shift = shift_of(made_up[0], settings)
    signal, noise = levels(replace(settings, noise_shift=shift))
    middle = settings.diffusion_steps // 2
    assert noise[middle] / signal[middle] == pytest.approx(half_told(made_up[0], 42), rel=0.06)
