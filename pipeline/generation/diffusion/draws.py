"""Noisy rows and what is to be told of them: a batch's, and held-out ones that never change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.generation.diffusion.baselines import Gaussian, target_shares
from pipeline.generation.diffusion.noise import levels
from pipeline.generation.settings import DiffusionSettings

HELD_OUT_DRAWS = 8192  # noisy rows that held-out losses are means over, at most
TIME_BINS = 20  # of the loss by step
FARTHEST = 20.0  # deviations of a row that is guessed
HELD_OUT = 2**31  # beside the seed: draws that no step of training has


class Rows(NamedTuple):
    """Scaled features (n, width) float32 and the number of each one's class (n,) int64."""

    features: np.ndarray
    classes: np.ndarray


class Draws(NamedTuple):
    """Rows with noise (n, width), what is to be told of them, their steps and classes (n,)."""

    noisy: Tensor
    target: Tensor
    steps: Tensor
    classes: Tensor

    def to(self, device: torch.device) -> Draws:
        """On a device."""
        return Draws(*(tensor.to(device) for tensor in self))

    def part(self, which: slice) -> Draws:
        """Some of them."""
        return Draws(*(tensor[which] for tensor in self))


class Noising:
    """Adds the noise of random steps to rows."""

    def __init__(self, settings: DiffusionSettings):
        self.settings = settings
        self.signal, self.noise = levels(settings)
        self._tables: dict[torch.device, Tensor] = {}

    def __call__(
        self, features: np.ndarray, classes: np.ndarray, rng: np.random.Generator
    ) -> Draws:
        """Draws of features (n, width) and their classes (n,)."""
        x = torch.from_numpy(features)
        steps = rng.integers(self.settings.diffusion_steps, size=len(features))
        seeded = torch.Generator().manual_seed(int(rng.integers(2**63)))
        noise = torch.randn(x.shape, generator=seeded)
        at = torch.from_numpy(steps)
        return Draws(*self.mixed(x, noise, at), at, torch.from_numpy(classes))

    def mixed(self, x: Tensor, noise: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """What is noisy, and what is to be told of it, of rows and noise (n, …) at steps (n,)."""
        alpha, sigma, a, b = self._shares_of(x, steps)
        return alpha * x + sigma * noise, a * x + b * noise

    def clean(self, noisy: Tensor, told: Tensor, steps: Tensor) -> Tensor:
        """The rows (n, …) that noisy ones come from, if what is told of them is right.

        Nothing is farther than FARTHEST from 0: of nearly pure noise little can be told.
        """
        alpha, sigma, a, b = self._shares_of(noisy, steps)
        rows = (b * noisy - sigma * told) / (b * alpha - a * sigma)
        return rows.clamp(-FARTHEST, FARTHEST)

    def _shares_of(self, x: Tensor, steps: Tensor) -> Iterator[Tensor]:
        """As `shares`, float32 on the device of rows (n, …), to be multiplied by them."""
        if x.device not in self._tables:
            every = np.stack(self.shares(np.arange(self.settings.diffusion_steps)), axis=1)
            self._tables[x.device] = torch.from_numpy(every.astype(np.float32)).to(x.device)
        found = self._tables[x.device][steps]
        return (share.view(-1, *(1,) * (x.dim() - 1)) for share in found.unbind(dim=1))

    def shares(self, steps: np.ndarray) -> tuple[np.ndarray, ...]:
        """Of steps (n,): signal and noise of the noisy row, row and noise of the target."""
        signal, noise = self.signal[steps], self.noise[steps]
        return signal, noise, *target_shares(self.settings.prediction, signal, noise)


@dataclass(frozen=True)
class HeldOut:
    """Held-out draws, as many of each class, and what the baselines miss of each.

    Attributes
    ----------
    linear, zero : mean squared errors (n,) float64 of the best linear guess and of 0.
    """

    draws: Draws
    linear: np.ndarray
    zero: np.ndarray

    @classmethod
    def of(
        cls, held_out: Rows, gaussians: Sequence[Gaussian], settings: DiffusionSettings
    ) -> HeldOut:
        """Of held-out rows; each class has some.

        Parameters
        ----------
        gaussians : of the training rows of each class, whose guess is the linear one.
        """
        noising = Noising(settings)
        rng = np.random.default_rng([settings.seed, HELD_OUT])
        each = max(1, HELD_OUT_DRAWS // len(gaussians))
        members = (np.flatnonzero(held_out.classes == n) for n in range(len(gaussians)))
        chosen = np.concatenate([np.resize(rng.permutation(rows), each) for rows in members])
        draws = noising(held_out.features[chosen], held_out.classes[chosen], rng)
        noisy, target, steps = (tensor.numpy() for tensor in draws[:3])
        linear = np.empty(len(chosen))
        for number, fitted in enumerate(gaussians):
            here = slice(number * each, (number + 1) * each)
            signal, noise, *shares = noising.shares(steps[here])
            told = fitted.denoised(noisy[here].astype(float), signal, noise, tuple(shares))
            linear[here] = np.square(told - target[here]).mean(axis=1)
        return cls(draws, linear, np.square(target.astype(float)).mean(axis=1))

    def by_time(self, losses: np.ndarray, diffusion_steps: int) -> list[dict[str, float]]:
        """Losses (n,) of a model by diffusion step, beside the baselines' of the same draws."""
        of = {"model": losses, "linear": self.linear, "zero": self.zero}
        edges = np.linspace(0, diffusion_steps, TIME_BINS + 1).round()
        steps, lines = self.draws.steps.numpy(), []
        for low, high in zip(edges, edges[1:]):
            here = (steps >= low) & (steps < high)
            if here.any():
                means = {f"{name}_loss": float(each[here].mean()) for name, each in of.items()}
                lines.append({"from_step": int(low), "to_step": int(high), **means})
        return lines
