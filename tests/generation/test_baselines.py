"""The guesses that a generator must be better than, and the scales that it learns on."""

import numpy as np
import pytest

from pipeline.generation.diffusion import draws
from pipeline.generation.diffusion.baselines import Gaussian, target_shares
from pipeline.generation.diffusion.draws import HeldOut, Rows
from pipeline.generation.diffusion.noise import levels, scheduler_of
from pipeline.generation.diffusion.scaling import Scaling
from pipeline.generation.settings import GeneratorSettings

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(6, 6))


def rows(count, seed):
    rng = np.random.default_rng(seed)
    classes = rng.integers(2, size=count)
    x = rng.normal(size=(count, 6)) @ MIX + 3 * classes[:, None]
    return x.astype(np.float32), classes


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_no_linear_map_does_better_than_the_best_one(prediction):
    x, classes = rows(8000, 1)
    x[classes == 1] *= 4  # classes of another scale have another map
    for number in (0, 1):
        mine = x[classes == number].astype(float)
        fitted = Gaussian.fit(mine)
        for signal in (0.2, 0.7, 0.97):
            noise = np.sqrt(1 - signal**2)
            eps = np.random.default_rng(2).normal(size=mine.shape)
            noisy = signal * mine + noise * eps
            levels_of = np.full(len(mine), signal), np.full(len(mine), noise)
            shares = target_shares(prediction, *levels_of)
            target = shares[0][:, None] * mine + shares[1][:, None] * eps
            told = fitted.denoised(noisy, *levels_of, shares)
            # ordinary least squares of the same rows, with an intercept
            inputs = np.concatenate([noisy, np.ones((len(mine), 1))], axis=1)
            least = inputs @ np.linalg.lstsq(inputs, target, rcond=None)[0]
            loss, least_loss = (np.square(each - target).mean() for each in (told, least))
            assert least_loss <= loss < 1.02 * least_loss
            assert loss < 0.999 * np.square(target).mean()


def test_held_out_draws_have_every_class_alike_whatever_the_order(monkeypatch):
    monkeypatch.setattr(draws, "HELD_OUT_DRAWS", 200)
    x, _ = rows(3000, 1)
    classes = np.repeat([0, 1], [2950, 50])  # the first 200 rows are of one class
    x[classes == 1] += 50
    gaussians = [Gaussian.fit(x[classes == number]) for number in (0, 1)]
    held = HeldOut.of(Rows(x, classes), gaussians, GeneratorSettings())
    assert np.bincount(held.draws.classes.numpy()).tolist() == [100, 100]
    assert held.zero[100:].mean() > 10 * held.zero[:100].mean()
    assert held.linear.mean() < 1.1 * np.square(x).mean()
    by_time = held.by_time(held.linear, 200)
    assert all(line["model_loss"] == line["linear_loss"] for line in by_time)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_targets_are_those_of_diffusers(schedule):
    import torch

    settings = GeneratorSettings(noise_schedule=schedule)
    scheduler = scheduler_of(settings)
    x, noise = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    steps = torch.tensor([0, 10, 100, 180, 199])
    signal, level = (share[steps.numpy()] for share in levels(settings))
    noisy = signal[:, None] * x.numpy() + level[:, None] * noise.numpy()
    np.testing.assert_allclose(noisy, scheduler.add_noise(x, noise, steps).numpy(), atol=1e-6)
    a, b = (share[:, None] for share in target_shares("v", signal, level))
    velocity = scheduler.get_velocity(x, noise, steps).numpy()
    np.testing.assert_allclose(a * x.numpy() + b * noise.numpy(), velocity, atol=1e-6)
    assert level[-1] > 0.99  # the last step is nearly noise alone


def test_whitened_rows_have_unit_covariance_and_come_back():
    x, _ = rows(80, 3)
    assert Scaling.fit(x, "auto").components is None
    assert Scaling.fit(x[:5], "auto").components is not None  # fewer rows than columns
    scaling = Scaling.fit(x, "on")
    made = scaling.inward(x)
    np.testing.assert_allclose(made.T @ made / len(x), np.eye(made.shape[1]), atol=1e-4)
    np.testing.assert_allclose(scaling.outward(made), x, atol=0.5 * x.std())
    assert scaling.explained >= 0.99
    again = Scaling.load(scaling.save())
    np.testing.assert_array_equal(again.inward(x), made)


def test_columns_of_any_unit_get_unit_deviation_and_constant_ones_do_not_explode():
    x, _ = rows(400, 5)
    x = x * [90, 1, 1e-5, 1e4, 1, 1] + [0, 1e3, 0, 0, 0, 0]
    x[:, 5] = 7
    scaling = Scaling.fit(x.astype(np.float32), "off")
    np.testing.assert_allclose(scaling.inward(x)[:, :5].std(axis=0), 1, atol=1e-2)
    new = x[:1] + [0, 0, 0, 0, 0, 0.1]
    assert abs(scaling.inward(new)[0, 5]) < 1000


def test_what_whitening_leaves_out_is_told():
    x, _ = rows(80, 3)
    scaling = Scaling.fit(x[:5], "on")  # five rows span four directions
    assert scaling.width <= 4 and scaling.explained > 0.99
    assert scaling.kept_share(x[5:]) < 0.99


def test_many_rows_are_standardised_and_come_back():
    x, _ = rows(400, 4)
    scaling = Scaling.fit(x, "auto")
    assert scaling.components is None
    np.testing.assert_allclose(scaling.inward(x).std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(scaling.outward(scaling.inward(x)), x, atol=1e-4)
