"""A training that is counted in steps: the loop that its workers run, and what checkpoints hold.

The learning rate rises from 0 and falls linearly to 0 again. Workers share a step's batch, and the
loss is a mean over all of it, so the sum of the workers' gradients is the gradient of one worker
with the whole batch.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.runtime import telemetry
from pipeline.runtime.files import write_atomically
from pipeline.runtime.text import records_csv
from pipeline.runtime.train.learning_rate import linear_schedule
from pipeline.runtime.train.ray_train import (
    add_gradients,
    last_checkpoint,
    rank,
    read_state,
    report,
    world,
)


class TrainingInSteps(ABC):
    """A model, its optimiser, and where its training stands; all that a checkpoint holds.

    Parameters
    ----------
    settings : with lr, warmup_share, grad_clip and checkpoint_every.
    steps : of the whole training.

    Attributes
    ----------
    step, seconds : how far it is.
    history : a line for each checkpoint, and before them what `beforehand` gives.
    """

    progress: tuple[str, ...] = ("step", "seconds", "history")

    def __init__(
        self, settings: Any, model: nn.Module, optimizer: Optimizer, steps: int,
        device: torch.device,
    ):  # fmt: skip
        self.settings, self.device, self.steps = settings, device, steps
        self.model, self.optimizer = model, optimizer
        self.schedule = linear_schedule(steps, settings.warmup_share)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []

    @abstractmethod
    def one_step(self) -> dict[str, float | Tensor]:
        """One step of the optimiser, by `update`; losses of its whole batch, which may be on the
        device still."""

    @abstractmethod
    def line(self, means: dict[str, float]) -> dict[str, float]:
        """What the history has of a checkpoint, from the mean losses since the last; the end of it
        is the `seconds` that the training has taken."""

    def beforehand(self) -> list[dict[str, float]]:
        """Lines of the history before the first step."""
        return []

    def train(self, curves: str) -> dict[str, Any]:
        """Train from the run's last checkpoint on; the curves and figures, alike on every worker.

        Parameters
        ----------
        curves : path or URI of the CSV file that shows how far the training is.
        """
        resumed_after = self.resume()
        self.history = self.history or self.beforehand()
        while self.step < self.steps:
            self.run(min(self.steps, self.step + self.settings.checkpoint_every))
            report(self.history[-1], self.content)
            if rank() == 0:
                write_atomically(curves, records_csv(self.history))
        return {
            "history": self.history,
            "steps": self.steps,
            "resumed_after_step": resumed_after,
            "train_time_seconds": self.seconds,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "peak_gpu_memory_train_gb": telemetry.peak_gpu_memory_gb(),
            "peak_resident_memory_train_gb": telemetry.peak_resident_memory_gb(),
        }

    def run(self, until: int) -> None:
        """Train up to a step; then add a line to the history."""
        started, first = time.perf_counter(), self.step
        self.model.train()
        sums: dict[str, float | Tensor] = {}
        while self.step < until:
            for name, value in self.one_step().items():
                sums[name] = sums.get(name, 0.0) + value
            self.step += 1
        # Only now is a device waited for.
        means = {name: float(total) / (self.step - first) for name, total in sums.items()}
        self.seconds += time.perf_counter() - started
        self.history.append(self.line(means))

    def update(self) -> Tensor:
        """Move the model by the gradients of all workers; the norm that these had."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        add_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self.schedule(self.step)
        self.optimizer.step()
        return norm

    def content(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": {name: getattr(self, name) for name in self.progress},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `content` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["progress"].items():
            setattr(self, name, value)

    def resume(self) -> int:
        """Continue from this run's latest checkpoint, if it has one; its step."""
        checkpoint = last_checkpoint()
        if checkpoint is not None:
            self.restore(read_state(checkpoint))
        return self.step


def over_workers(values: Tensor, device: torch.device) -> Tensor:
    """The sum of all workers' values, on a device."""
    values = values.to(device)
    if world() > 1:
        dist.all_reduce(values)
    return values
