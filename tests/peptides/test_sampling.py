"""Samples: those of a plain loop, of the asked lengths and classes, and the same every time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.generation.diffusion.draws import FARTHEST, Noising
from pipeline.generation.diffusion.noise import levels
from pipeline.peptides.diffusion.generator import length_counts
from pipeline.peptides.diffusion.sampling import PeptideSampler, PeptideShard, draw_peptides


@pytest.fixture
def generator(trained):
    return trained[0].generator


SHARD = PeptideShard((7, 0), np.array([0, 1, 1]), np.array([6, 11, 14]))


def plain_ddpm(generator, shard, noise):
    """Ho et al. 2020, algorithm 2, in float64, guided (Ho and Salimans 2022), one after another."""
    settings, network = generator.settings, generator.network().denoiser
    signal, level = levels(settings)
    longest = 16
    shape = (len(shard.classes), longest, generator.scaling.width)
    x = torch.randn(shape, generator=noise).double()
    guess = {of: torch.zeros(shape, dtype=torch.float64) for of in ("class", "any")}
    classes, real = (
        torch.from_numpy(shard.classes),
        torch.arange(longest) < torch.from_numpy(shard.lengths).view(-1, 1),
    )
    for step in range(settings.diffusion_steps - 1, -1, -1):
        a, s = signal[step], level[step]

        def cleaned(told, x=x, a=a, s=s):
            return a * x - s * told if settings.prediction == "v" else (x - s * told) / a

        told = {}
        for name, of in (("class", classes), ("any", torch.full_like(classes, 2))):
            steps = torch.full_like(of, step)
            with torch.no_grad():
                told[name] = network(x.float(), guess[name].float(), real, steps, of).double()
            guess[name] = cleaned(told[name]).clamp(-FARTHEST, FARTHEST)
        clean = cleaned(told["any"] + settings.guidance * (told["class"] - told["any"]))
        before = signal[step - 1] if step else 1.0
        alpha = (a / before) ** 2
        mean = (before * (1 - alpha) * clean + np.sqrt(alpha) * (1 - before**2) * x) / s**2
        x = mean
        if step:
            variance = (1 - before**2) / s**2 * (1 - alpha)
            x = x + np.sqrt(variance) * torch.randn(shape, generator=noise).double()
    return x, real


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_ddpm_is_that_of_a_plain_loop(generator, guidance, prediction):
    settings = replace(generator.settings, guidance=guidance, prediction=prediction)
    generator = replace(generator, settings=settings)
    sampler = PeptideSampler(generator, "cpu", "fp32")
    with torch.inference_mode():
        latents, real = sampler.latents(SHARD, torch.Generator().manual_seed(5))
    plain, mask = plain_ddpm(generator, SHARD, torch.Generator().manual_seed(5))
    assert torch.equal(real, mask)
    torch.testing.assert_close(latents[real].double(), plain[mask], rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_peptides_have_the_lengths_and_the_letters_of_their_class(generator, sampler):
    generator = replace(generator, settings=replace(generator.settings, sampler=sampler))
    classes = np.repeat([0, 1], 12)
    lengths = np.tile([12, 5, 9], 8)
    drawn = draw_peptides(generator, classes, lengths, (1,))
    assert [len(text) for text in drawn.sequences] == lengths.tolist()
    share = [np.mean([text.count("K") + text.count("L") for text in drawn.sequences[part]]) / 8.67
             for part in (slice(0, 12), slice(12, 24))]  # fmt: skip
    assert share[0] > 0.9 and share[1] < 0.1
    assert ((drawn.confidence > 0) & (drawn.confidence <= 1)).all()
    again = draw_peptides(generator, classes, lengths, (1,))
    assert again.sequences == drawn.sequences
    assert draw_peptides(generator, classes, lengths, (2,)).sequences != drawn.sequences


def test_lengths_are_drawn_as_often_as_training_has_them(generator, made_up):
    train = made_up[0]
    rng = np.random.default_rng(0)
    for number, name in enumerate(generator.classes):
        mine = train.lengths[train.classes == number]
        assert generator.lengths[name] == length_counts(mine)
        drawn = generator.lengths_of(name, 20_000, rng)
        assert set(drawn) <= set(mine)
        for length in set(mine):
            assert (drawn == length).mean() == pytest.approx((mine == length).mean(), abs=0.015)


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_clean_rows_are_got_back_from_noisy_ones(generator, prediction):
    noising = Noising(replace(generator.settings, prediction=prediction))
    x, noise = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    steps = torch.tensor([0, 5, 12, 20, 30])
    noisy, target = noising.mixed(x, noise, steps)
    torch.testing.assert_close(noising.clean(noisy, target, steps), x, rtol=1e-3, atol=1e-3)
