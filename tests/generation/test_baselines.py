"""The guesses that a generator must be better than, and the scales that it learns on."""

import numpy as np
import pytest

from pipeline.generation.diffusion.baselines import LinearDenoiser, target_shares
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
    x, classes = rows(4000, 1)
    fitted = LinearDenoiser.fit(x, classes, 2)
    for signal in (0.2, 0.7, 0.97):
        noise = np.sqrt(1 - signal**2)
        eps = np.random.default_rng(2).normal(size=x.shape)
        noisy = signal * x + noise * eps
        shares = target_shares(prediction, np.full(len(x), signal), np.full(len(x), noise))
        target = shares[0][:, None] * x + shares[1][:, None] * eps
        told = fitted(noisy, classes, np.full(len(x), signal), np.full(len(x), noise), shares)
        # ordinary least squares of the same rows, with an intercept for each class
        inputs = np.concatenate([noisy, np.eye(2)[classes]], axis=1)
        least = inputs @ np.linalg.lstsq(inputs, target, rcond=None)[0]
        loss, least_loss = (np.square(each - target).mean() for each in (told, least))
        assert least_loss <= loss < 1.01 * least_loss
        assert loss < 0.999 * np.square(target).mean()


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
    scaling = Scaling.fit(x, "auto")  # fewer than 20 rows a column
    made = scaling.inward(x)
    np.testing.assert_allclose(made.T @ made / len(x), np.eye(made.shape[1]), atol=1e-4)
    np.testing.assert_allclose(scaling.outward(made), x, atol=0.2 * x.std())
    assert scaling.explained >= 0.999
    again = Scaling.load(scaling.save())
    np.testing.assert_array_equal(again.inward(x), made)


def test_many_rows_are_standardised_and_come_back():
    x, _ = rows(400, 4)
    scaling = Scaling.fit(x, "auto")
    assert scaling.components is None
    np.testing.assert_allclose(scaling.inward(x).std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(scaling.outward(scaling.inward(x)), x, atol=1e-4)
