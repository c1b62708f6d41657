"""Measures of generated rows: real beside real is good, copies and noise show."""

import numpy as np

from pipeline.generation import measures
from pipeline.generation.measures import gaussian, measure, noise

RNG = np.random.default_rng(0)


def moons(count, seed):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, np.pi, count)
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (rows + rng.normal(0, 0.05, rows.shape)).astype(np.float32)


def test_a_second_real_sample_is_better_than_a_gaussian_and_that_than_noise(monkeypatch):
    monkeypatch.setattr(measures, "TREES", 20)
    train, real = moons(600, 1), moons(300, 2)
    others = {
        "real": moons(400, 3), "gaussian": gaussian(train, 300, 0), "noise": noise(train, 300, 0),
        "few": moons(4, 5), "one place": np.repeat(real[:1], 300, axis=0),
    }  # fmt: skip
    found = measure(real, others, 0)
    assert found["few"] is None  # and the others keep their size
    assert measure(real[:19], others, 0) == dict.fromkeys(others)
    fewer = measure(real, {"few": moons(30, 5)}, 0, most=30)
    assert fewer["few"]["rows"] == 30
    assert {each["rows"] for each in found.values() if each} == {300}
    assert found["real"]["precision"] > 0.9 and found["real"]["coverage"] > 0.9
    assert abs(found["real"]["told_apart_auroc"] - 0.5) < 0.1
    for control in ("gaussian", "noise"):
        assert found[control]["precision"] < 0.5 and found[control]["told_apart_auroc"] > 0.8
    assert found["one place"]["coverage"] < 0.1


def test_the_gaussian_has_the_mean_and_covariance_of_its_rows():
    train = RNG.normal(size=(4000, 3)) @ RNG.normal(size=(3, 3)) + 5
    made = gaussian(train, 40_000, 1)
    np.testing.assert_allclose(made.mean(axis=0), train.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(np.cov(made.T), np.cov(train.T), atol=0.15)
    np.testing.assert_allclose(noise(train, 40_000, 1).std(axis=0), train.std(axis=0), rtol=0.05)
