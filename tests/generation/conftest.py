"""A small generator of two rings, trained once."""

import numpy as np
import pytest

from pipeline.generation.diffusion.fitting import Classed, fit_generator
from pipeline.generation.settings import GeneratorSettings

SETTINGS = GeneratorSettings(
    steps=240, width=48, blocks=2, batch_size=128, diffusion_steps=40, checkpoint_every=120,
    ema_decay=0.95, lr=5e-3,
)  # fmt: skip
NAMES = ("inner", "outer")


def rings(count, seed):
    """Points near a circle of radius 1 (class 0) or 3, and a column that tells nothing."""
    rng = np.random.default_rng(seed)
    classes, angle = np.arange(count) % 2, rng.uniform(0, 2 * np.pi, count)
    radius = 1 + 2 * classes + rng.normal(0, 0.05, count)
    columns = [radius * np.cos(angle), radius * np.sin(angle), rng.normal(size=count)]
    return Classed(np.stack(columns, axis=1).astype(np.float32), classes)


@pytest.fixture(scope="package")
def trained(ray_session, tmp_path_factory):
    """The generator with how its training went, and the folder."""
    folder = tmp_path_factory.mktemp("generator")
    fitted = fit_generator(rings(600, 1), rings(200, 2), NAMES, SETTINGS, str(folder))
    fitted.forget()
    return fitted, folder
