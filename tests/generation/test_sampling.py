"""Samples: those of a plain loop over the same noise, on any number of threads and actors."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.generation.diffusion import sampling
from pipeline.generation.diffusion.noise import levels, scheduler_of, steps_of
from pipeline.generation.diffusion.sampling import Sampler, Shard, draw
from pipeline.generation.settings import GeneratorSettings

CLASSES = np.repeat([0, 1], [30, 40])


def with_settings(generator, **changes):
    return replace(generator, settings=replace(generator.settings, **changes))


def plain_ddpm(generator, shard):
    """Ho et al. 2020, algorithm 2, in float64, a row at a time; the target is the velocity."""
    settings, network = generator.settings, generator.network().double()
    seed = int(np.random.default_rng(shard.seed).integers(2**63))
    noise = torch.Generator().manual_seed(seed)
    shape = len(shard.classes), generator.scaling.width
    draws = [torch.randn(shape, generator=noise).double() for _ in range(settings.diffusion_steps)]
    kept = levels(settings)[0] ** 2
    rows = []
    for row, label in enumerate(shard.classes):
        x = draws[0][row]
        for step in reversed(range(settings.diffusion_steps)):
            told = {
                name: network(x[None], torch.tensor([step]), torch.tensor([of]))[0].detach()
                for name, of in (("class", label), ("any", network.any_class))
            }
            v = told["any"] + settings.guidance * (told["class"] - told["any"])
            before = kept[step - 1] if step else 1.0
            alpha, beta = kept[step] / before, 1 - kept[step] / before
            clean = np.sqrt(kept[step]) * x - np.sqrt(1 - kept[step]) * v
            x = (
                np.sqrt(before) * beta / (1 - kept[step]) * clean
                + np.sqrt(alpha) * (1 - before) / (1 - kept[step]) * x
            )
            if step:
                deviation = np.sqrt((1 - before) / (1 - kept[step]) * beta)
                x = x + deviation * draws[settings.diffusion_steps - step][row]
        rows.append(x)
    return torch.stack(rows).numpy()


def plain_ddim(generator, shard):
    """Song et al. 2021, equation 12 without fresh noise, in float64; of noise or velocity."""
    settings, network = generator.settings, generator.network().double()
    seed = int(np.random.default_rng(shard.seed).integers(2**63))
    shape = len(shard.classes), generator.scaling.width
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
    signal, noise = levels(settings)
    steps = steps_of(settings)
    for step, after in zip(steps, [*steps[1:], None]):
        at = torch.full((shape[0],), int(step))
        told = network(x, at, torch.from_numpy(shard.classes)).detach()
        if settings.prediction == "v":
            clean, eps = (
                signal[step] * x - noise[step] * told,
                noise[step] * x + signal[step] * told,
            )
        else:
            clean, eps = (x - noise[step] * told) / signal[step], told
        x = clean if after is None else signal[after] * clean + noise[after] * eps
    return x.numpy()


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("steps", [7, 30, 38])
def test_fewer_steps_are_those_of_ddim(trained, prediction, steps):
    generator = with_settings(
        trained[0].generator, sampler="ddim", sampling_steps=steps, prediction=prediction
    )
    shard = Shard((5, 0), np.array([0, 1, 1, 0]))
    made, expected = Sampler(generator, "cpu", "fp32").sample(shard), plain_ddim(generator, shard)
    np.testing.assert_allclose(made, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_steps_are_different_ones_that_fall_to_the_first(sampler, schedule):
    for most, few in ((20, 20), (40, 30), (200, 97), (200, 134), (200, 30), (1000, 999)):
        settings = GeneratorSettings(
            sampler=sampler, noise_schedule=schedule, diffusion_steps=most, sampling_steps=few
        )
        steps = steps_of(settings)
        assert (np.diff(steps) < 0).all() and steps[-1] == 0 and steps[0] < most
        assert scheduler_of(settings).timesteps.tolist() == steps.tolist()


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_shift_multiplies_the_noise_beside_the_signal_at_each_step(schedule):
    usual = GeneratorSettings(noise_schedule=schedule)
    signal, noise = levels(usual)
    shifted, more = levels(replace(usual, noise_shift=5.0))
    np.testing.assert_allclose(more / shifted, 5 * noise / signal, rtol=1e-3)
    np.testing.assert_allclose(shifted**2 + more**2, 1, atol=1e-6)
    np.testing.assert_array_equal(levels(replace(usual, noise_shift=None))[0], signal)


@pytest.mark.parametrize(("guidance", "shift"), [(1.0, 1.0), (2.0, 1.0), (1.0, 4.0)])
def test_samples_are_those_of_a_plain_loop_over_the_same_noise(trained, guidance, shift):
    generator = with_settings(trained[0].generator, guidance=guidance, noise_shift=shift)
    shard = Shard((5, 0), np.array([0, 1, 1, 0]))
    made = Sampler(generator, "cpu", "fp32").sample(shard)
    np.testing.assert_allclose(made, plain_ddpm(generator, shard), atol=2e-4)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_samples_lie_on_their_classs_ring(trained, sampler):
    generator = with_settings(trained[0].generator, sampler=sampler)
    made = draw(generator, np.repeat([0, 1], 150), (3,), precision="fp32")
    radius = np.hypot(made[:, 0], made[:, 1])
    assert np.corrcoef(radius, np.repeat([0, 1], 150))[0, 1] > 0.6
    assert radius[:150].mean() == pytest.approx(1, abs=0.4)
    assert radius[150:].mean() == pytest.approx(3, abs=0.6)
    assert np.isfinite(made).all()


def test_a_seed_and_the_classes_decide_the_samples_not_the_threads(trained, monkeypatch):
    generator = with_settings(trained[0].generator, sampler="ddim", sampling_steps=5)
    monkeypatch.setitem(sampling.SHARD_ROWS, "cpu", 16)
    made = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(sampling, "usable_cores", lambda cores=cores: cores)
        made.append(draw(generator, CLASSES, (7,), precision="fp32"))
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])
    # the first rows do not depend on how many follow
    fewer = draw(generator, CLASSES[:32], (7,), precision="fp32")
    np.testing.assert_array_equal(made[0][:32], fewer)
    assert not np.allclose(made[0], draw(generator, CLASSES, (8,), precision="fp32"))


def test_actors_draw_what_threads_draw(trained, monkeypatch):
    generator = with_settings(trained[0].generator, sampler="ddim", sampling_steps=3)
    monkeypatch.setitem(sampling.SHARD_ROWS, "cpu", 35)
    here = draw(generator, CLASSES, (7,), precision="fp32")
    monkeypatch.setattr(sampling, "is_one_node", lambda: False)
    np.testing.assert_array_equal(draw(generator, CLASSES, (7,), precision="fp32"), here)


def test_torchs_threads_are_left_as_they_were(trained):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        draw(trained[0].generator, np.zeros(4, int), (1,), precision="fp32")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_rows_are_no_samples(trained):
    assert draw(trained[0].generator, np.empty(0, int), (1,)).shape == (0, 3)
