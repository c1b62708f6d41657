"""What each training worker of a generator runs: steps, held-out losses, checkpoints.

A step's rows, their noise and their steps depend on the seed and the number of the step alone.
Workers share a batch, and the loss is a mean over all of it, so the sum of the workers' gradients
is the gradient of one worker with the whole batch.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.encoders.unimol.precision import PRECISIONS, autocast
from pipeline.generation.diffusion.baselines import LinearDenoiser, target_shares
from pipeline.generation.diffusion.denoiser import Denoiser
from pipeline.generation.diffusion.noise import levels
from pipeline.generation.settings import GeneratorSettings
from pipeline.runtime import telemetry
from pipeline.runtime.files import write_atomically
from pipeline.runtime.learning_rate import linear_schedule
from pipeline.runtime.optimizers import AdamW
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

HELD_OUT_DRAWS = 8192  # noisy rows that held-out losses are means over, at most
TIME_BINS = 20  # of the loss by step
HELD_OUT = 1  # beside the seed: draws that no step of training has


class Rows(NamedTuple):
    """Scaled features (n, width) float32 and the number of each one's class (n,) int64."""

    features: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class GeneratorJob:
    """What a worker needs.

    Attributes
    ----------
    rows : to train on, and held out: in the cluster's memory.
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


class Draws(NamedTuple):
    """Noisy rows: x, ε, α x + σ ε and what is to be told of them, with steps and classes."""

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
        "loss_by_time": state.losses_by_time(),
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
        self.train, holdout = ray.get(job.rows)
        self.members = [np.flatnonzero(self.train.classes == c) for c in range(job.classes)]
        self.signal, self.noise = levels(job.settings)
        torch.manual_seed(job.settings.seed)
        width = self.train.features.shape[1]
        self.model = Denoiser(width, job.classes, job.settings.width, job.settings.blocks)
        self.model.to(device)
        self.average = AveragedModel(
            self.model, multi_avg_fn=get_ema_multi_avg_fn(job.settings.ema_decay)
        )
        self.dtype = PRECISIONS[job.precision]
        self.optimizer = _optimizer(self.model, job.settings)
        self.schedule = linear_schedule(job.settings.steps, job.settings.warmup_share)
        self.holdout = self._held_out_draws(holdout)
        self.linear = self._linear_losses(holdout)
        self.step, self.seconds, self.best_step = 0, 0.0, 0
        self.history: list[dict[str, float]] = []
        self.best = copy.deepcopy(self.model.state_dict())

    def run(self, until: int) -> None:
        """Train up to a step; then note the mean training loss and the held-out ones."""
        started, first, total = time.perf_counter(), self.step, 0.0
        self.model.train()
        while self.step < until:
            total += self._step()
            self.step += 1
        self.seconds += time.perf_counter() - started
        losses = self._class_mean(self._losses(self.average.module))
        held_out = same_everywhere(losses, self.device)
        if not self.history or held_out < min(line["heldout_loss"] for line in self.history):
            self.best, self.best_step = copy.deepcopy(self.average.module.state_dict()), self.step
        self.history.append(
            {
                "step": self.step,
                "train_loss": total / (self.step - first),
                "heldout_loss": held_out,
                "zero_loss": self._class_mean(self.holdout.target.double().square().mean(dim=1)),
                "linear_loss": self._class_mean(self.linear),
                "seconds": self.seconds,
            }
        )

    def _step(self) -> float:
        """One step of the optimiser; the batch's loss."""
        settings, mine = self.settings, slice(rank(), None, world())
        rows = settings.batch_size * settings.gradient_accumulation_steps
        rng = np.random.default_rng([settings.seed, self.step])
        draws = self._drawn(self.train, self._chosen(rng, rows), rng, settings.class_dropout)
        numbers = draws.target.numel()
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for start in range(0, rows, settings.batch_size):
            part = draws.part(slice(start, start + settings.batch_size)).part(mine)
            loss = self._errors(self.model, part.to(self.device)).sum() / numbers
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

    def _chosen(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        """Which training rows a batch has."""
        if self.settings.class_sampling == "as_is":
            return rng.integers(len(self.train.classes), size=rows)
        classes = rng.integers(self.count, size=rows)
        sizes = np.array([len(each) for each in self.members])
        places = rng.integers(sizes[classes])
        return np.array([self.members[c][place] for c, place in zip(classes, places)])

    def _drawn(
        self, rows: Rows, chosen: np.ndarray, rng: np.random.Generator, hidden: float = 0.0
    ) -> Draws:
        """Some rows with noise of random steps; of a share of them the class is hidden."""
        x = torch.from_numpy(rows.features[chosen])
        steps = rng.integers(self.settings.diffusion_steps, size=len(chosen))
        seeded = torch.Generator().manual_seed(int(rng.integers(2**63)))
        noise = torch.randn(x.shape, generator=seeded)
        signal, level = self.signal[steps], self.noise[steps]
        alpha, sigma, a, b = (
            torch.from_numpy(share.astype(np.float32))[:, None]
            for share in (signal, level, *target_shares(self.settings.prediction, signal, level))
        )
        classes = rows.classes[chosen]
        if hidden:
            classes = np.where(rng.random(len(chosen)) < hidden, self.model.any_class, classes)
        return Draws(
            alpha * x + sigma * noise,
            a * x + b * noise,
            torch.from_numpy(steps),
            torch.from_numpy(classes),
        )

    def _errors(self, model: nn.Module, draws: Draws) -> Tensor:
        """Squared errors (n, width) float32."""
        with autocast(self.device, self.dtype):
            told = model(draws.noisy, draws.steps, draws.classes)
        return (told.float() - draws.target).square()

    def _held_out_draws(self, rows: Rows) -> Draws:
        """Noisy held-out rows that never change: each row several times, as often as others."""
        times = max(1, HELD_OUT_DRAWS // len(rows.classes))
        rng = np.random.default_rng([self.settings.seed, 0, HELD_OUT])
        chosen = np.tile(np.arange(len(rows.classes)), times)[:HELD_OUT_DRAWS]
        return self._drawn(rows, chosen, rng).to(self.device)

    @torch.no_grad()
    def _losses(self, model: nn.Module) -> Tensor:
        """Mean squared error (n,) float64 of each held-out draw."""
        model.eval()
        size = max(1024, self.settings.batch_size)
        parts = [
            self._errors(model, self.holdout.part(slice(start, start + size))).double().mean(dim=1)
            for start in range(0, len(self.holdout.steps), size)
        ]
        return torch.cat(parts)

    def _linear_losses(self, rows: Rows) -> Tensor:
        """As `_losses`, of the best linear map."""
        fitted = LinearDenoiser.fit(self.train.features, self.train.classes, self.count)
        steps, classes = (t.cpu().numpy() for t in (self.holdout.steps, self.holdout.classes))
        signal, noise = self.signal[steps], self.noise[steps]
        shares = target_shares(self.settings.prediction, signal, noise)
        noisy, target = (t.cpu().double().numpy() for t in self.holdout[:2])
        told = fitted(noisy, classes, signal, noise, shares)
        return torch.from_numpy(np.square(told - target).mean(axis=1)).to(self.device)

    def _class_mean(self, losses: Tensor, of: Tensor | None = None) -> float:
        """The mean over classes of each class's mean, of all held-out draws or some (mask)."""
        classes = self.holdout.classes
        if of is not None:
            losses, classes = losses[of], classes[of]
        means = [losses[classes == c].mean() for c in classes.unique()]
        return torch.stack(means).mean().item()

    def losses_by_time(self) -> list[dict[str, float]]:
        """Held-out losses of the best step by diffusion step: model, best linear, zero."""
        self.model.load_state_dict(self.best)
        of = {
            "model": self._losses(self.model),
            "linear": self.linear,
            "zero": self.holdout.target.double().square().mean(dim=1),
        }
        edges = np.linspace(0, self.settings.diffusion_steps, TIME_BINS + 1).round()
        lines = []
        for low, high in zip(edges, edges[1:]):
            here = (self.holdout.steps >= low) & (self.holdout.steps < high)
            if here.any():
                means = {f"{name}_loss": self._class_mean(each, here) for name, each in of.items()}
                lines.append({"from_step": int(low), "to_step": int(high), **means})
        return lines

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


def _optimizer(model: nn.Module, settings: GeneratorSettings) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=settings.lr)
