"""What each training worker of a generator runs: steps, held-out losses, checkpoints.

A step's rows, their noise and their steps depend on the seed and the number of the step alone.
Workers share a batch, and the loss is a mean over all of it, so the sum of the workers' gradients
is the gradient of one worker with the whole batch.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pipeline.encoders.unimol.precision import PRECISIONS, autocast
from pipeline.generation.diffusion.denoiser import Denoiser
from pipeline.generation.diffusion.draws import Draws, HeldOut, Noising, Rows
from pipeline.generation.settings import GeneratorSettings
from pipeline.runtime import telemetry
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_atomically
from pipeline.runtime.learning_rate import linear_schedule
from pipeline.runtime.optimizers import adamw_of
from pipeline.runtime.ray_train import (
    add_gradients,
    last_checkpoint,
    prepare_device,
    rank,
    read_state,
    report,
    same_everywhere,
    world,
)
from pipeline.runtime.text import records_csv

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
    state = GeneratorState(job, prepare_device(job.threads))
    resumed_after = state.resume()
    while state.step < job.settings.steps:
        state.run(min(job.settings.steps, state.step + job.settings.checkpoint_every))
        report(state.history[-1], state.content)
        if rank() == 0:
            write_atomically(job.curves, records_csv(state.history))
    return {
        "history": state.history,
        "best_step": state.best_step,
        "resumed_after_step": resumed_after,
        "train_time_seconds": state.seconds,
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "peak_gpu_memory_train_gb": telemetry.peak_gpu_memory_gb(),
        "peak_resident_memory_train_gb": telemetry.peak_resident_memory_gb(),
    }


class GeneratorState:
    """The model, its moving average and optimiser, and where training stands."""

    def __init__(self, job: GeneratorJob, device: torch.device):
        self.settings, self.device, self.count = job.settings, device, job.classes
        self.train, self.held_out = _rows(job)
        self.members = [np.flatnonzero(self.train.classes == c) for c in range(job.classes)]
        self.noising = Noising(job.settings)
        torch.manual_seed(job.settings.seed)
        width = self.train.features.shape[1]
        self.model = Denoiser(width, job.classes, job.settings.width, job.settings.blocks)
        self.model.to(device)
        self.average = AveragedModel(self.model, multi_avg_fn=averaging(job.settings.ema_decay))
        self.dtype = PRECISIONS[job.precision]
        self.optimizer = adamw_of(self.model, job.settings.lr, job.settings.weight_decay)
        self.schedule = linear_schedule(job.settings.steps, job.settings.warmup_share)
        self.step, self.seconds, self.best_step = 0, 0.0, 0
        self.history: list[dict[str, float]] = []
        self.best = copy.deepcopy(self.model.state_dict())

    def run(self, until: int) -> None:
        """Train up to a step; then note the mean training loss and the held-out ones.

        Raises
        ------
        InputError
            If the loss is no number any more.
        """
        started, first, total = time.perf_counter(), self.step, 0.0
        self.model.train()
        while self.step < until:
            total += self._step()
            self.step += 1
        self.seconds += time.perf_counter() - started
        losses = losses_of(self.average.module, self.held_out.draws, self.device, self.dtype)
        held_out = same_everywhere(float(losses.mean()), self.device)
        if not np.isfinite(held_out):
            raise InputError(
                f"the generator's loss is {held_out} after {self.step} steps; lower --lr "
                f"({self.settings.lr:g})"
            )
        if not self.history or held_out < min(line["heldout_loss"] for line in self.history):
            self.best, self.best_step = copy.deepcopy(self.average.module.state_dict()), self.step
        self.history.append(
            {
                "step": self.step,
                "train_loss": total / (self.step - first),
                "heldout_loss": held_out,
                "zero_loss": float(self.held_out.zero.mean()),
                "linear_loss": float(self.held_out.linear.mean()),
                "seconds": self.seconds,
            }
        )

    def _step(self) -> float:
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
        parameters = list(self.model.parameters())
        add_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, settings.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * self.schedule(self.step)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        if world() > 1:
            torch.distributed.all_reduce(total)
        return total.item()

    def _batch(self, rows: int) -> Draws:
        """The whole batch of this step; of some of its rows the class is hidden."""
        rng = np.random.default_rng([self.settings.seed, self.step])
        chosen = self._chosen(rng, rows)
        classes = self.train.classes[chosen]
        hidden = rng.random(rows) < self.settings.class_dropout
        classes = np.where(hidden, self.model.any_class, classes)
        return self.noising(self.train.features[chosen], classes, rng)

    def _chosen(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """Which training rows a batch has."""
        if self.settings.class_sampling == "as_is":
            return rng.integers(len(self.train.classes), size=rows)
        classes, chosen = rng.integers(self.count, size=rows), np.empty(rows, int)
        for number, members in enumerate(self.members):
            here = classes == number
            chosen[here] = members[rng.integers(len(members), size=here.sum())]
        return chosen

    def content(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "progress": {
                name: getattr(self, name) for name in ("step", "seconds", "best_step", "history")
            },
        }

    def resume(self) -> int:
        """Continue from this run's latest checkpoint, if it has one; its step."""
        checkpoint = last_checkpoint()
        if checkpoint is not None:
            state = read_state(checkpoint)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.best = {name: t.to(self.device) for name, t in state["best"].items()}
            for name, value in state["progress"].items():
                setattr(self, name, value)
        return self.step


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


def averaging(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]:
    """What `AveragedModel` updates by: a moving average that is shorter while training is young."""

    @torch.no_grad()
    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], number: Any) -> None:
        known = float(number)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + known) / (10 + known)))

    return update


def _rows(job: GeneratorJob) -> tuple[Rows, HeldOut]:
    return ray.get(job.rows)


def _errors(model: nn.Module, draws: Draws, dtype: torch.dtype) -> Tensor:
    """Squared errors (n, width) float32."""
    with autocast(draws.noisy.device, dtype):
        told = model(draws.noisy, draws.steps, draws.classes)
    return (told.float() - draws.target).square()
