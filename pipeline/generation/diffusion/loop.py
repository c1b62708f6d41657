"""What each training worker of a generator runs: steps, held-out losses, checkpoints.

A step's rows, their noise and their steps depend on the seed and the number of the step alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor, nn

from pipeline.encoders.unimol.precision import PRECISIONS, autocast
from pipeline.generation.diffusion.denoiser import Denoiser
from pipeline.generation.diffusion.draws import Draws, HeldOut, Noising, Rows
from pipeline.generation.diffusion.state import DiffusionState
from pipeline.generation.settings import GeneratorSettings
from pipeline.runtime.train.ray_train import prepare_device, rank, world
from pipeline.runtime.train.training_in_steps import over_workers

AT_ONCE = 1024  # held-out draws in one forward pass, if a batch has fewer


@dataclass(frozen=True)
class GeneratorJob:
    """What a worker needs.

    Attributes
    ----------
    rows : `Rows` to train on, and `HeldOut`: in the cluster's memory.
    classes : their number.
    precision : decided.
    curves : path or URI of the file that shows how far the run is.
    """

    settings: GeneratorSettings
    rows: ray.ObjectRef
    classes: int
    precision: str
    threads: int
    curves: str


def generator_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Train a generator; returns the curves and figures (the same on every worker)."""
    job: GeneratorJob = config["job"]
    return GeneratorState(job, prepare_device(job.threads)).train(job.curves)


class GeneratorState(DiffusionState):
    """The training of a generator of features."""

    def __init__(self, job: GeneratorJob, device: torch.device):
        self.count = job.classes
        self.train_rows, self.held_out_rows = _rows(job)
        self.members = [np.flatnonzero(self.train_rows.classes == c) for c in range(job.classes)]
        self.noising = Noising(job.settings)
        torch.manual_seed(job.settings.seed)
        width = self.train_rows.features.shape[1]
        model = Denoiser(width, job.classes, job.settings.width, job.settings.blocks)
        self.dtype = PRECISIONS[job.precision]
        super().__init__(model.to(device), job.settings, device)

    def held_out(self) -> dict[str, float]:
        """Losses of the moving average and of the baselines."""
        held = self.held_out_rows
        losses = losses_of(self.average.module, held.draws, self.device, self.dtype)
        return {
            "heldout_loss": float(losses.mean()),
            "zero_loss": float(held.zero.mean()),
            "linear_loss": float(held.linear.mean()),
        }

    def one_step(self) -> dict[str, Tensor]:
        """One step of the optimiser; the batch's loss."""
        settings, mine = self.settings, slice(rank(), None, world())
        rows = settings.batch_size * settings.gradient_accumulation_steps
        draws = self._batch(rows)
        numbers = draws.target.numel()
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for start in range(0, rows, settings.batch_size):
            part = draws.part(slice(start, start + settings.batch_size)).part(mine)
            loss = _errors(self.model, part.to(self.device), self.dtype).sum() / numbers
            loss.backward()
            total += loss.detach()
        self.update()
        return {"loss": over_workers(total, self.device)}

    def _batch(self, rows: int) -> Draws:
        """The whole batch of this step; of some of its rows the class is hidden."""
        rng = np.random.default_rng([self.settings.seed, self.step])
        chosen = self._chosen(rng, rows)
        classes = self.train_rows.classes[chosen]
        hidden = rng.random(rows) < self.settings.class_dropout
        classes = np.where(hidden, self.model.any_class, classes)
        return self.noising(self.train_rows.features[chosen], classes, rng)

    def _chosen(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """Which training rows a batch has."""
        if self.settings.class_sampling == "as_is":
            return rng.integers(len(self.train_rows.classes), size=rows)
        classes, chosen = rng.integers(self.count, size=rows), np.empty(rows, int)
        for number, members in enumerate(self.members):
            here = classes == number
            chosen[here] = members[rng.integers(len(members), size=here.sum())]
        return chosen


@torch.no_grad()
def losses_of(
    model: nn.Module, draws: Draws, device: torch.device, dtype: torch.dtype
) -> np.ndarray:
    """Mean squared error (n,) float64 of each draw, by a model on a device."""
    model.eval()
    parts = [
        _errors(model, draws.part(slice(start, start + AT_ONCE)).to(device), dtype)
        for start in range(0, len(draws.steps), AT_ONCE)
    ]
    return torch.cat([part.double().mean(dim=1) for part in parts]).cpu().numpy()


def _rows(job: GeneratorJob) -> tuple[Rows, HeldOut]:
    return ray.get(job.rows)


def _errors(model: nn.Module, draws: Draws, dtype: torch.dtype) -> Tensor:
    """Squared errors (n, width) float32."""
    with autocast(draws.noisy.device, dtype):
        told = model(draws.noisy, draws.steps, draws.classes)
    return (told.float() - draws.target).square()
