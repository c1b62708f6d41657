"""What trainings of diffusion models share: steps, held-out losses, a moving average, checkpoints.

Whoever trains one says what a step is and what is told of held-out rows; see `DiffusionState`.
"""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pipeline.encoders.unimol.precision import default_precision
from pipeline.generation.settings import DiffusionSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.train.optimizers import adamw_of
from pipeline.runtime.train.ray_train import same_everywhere
from pipeline.runtime.train.training_in_steps import TrainingInSteps

log = logging.getLogger(__name__)


class DiffusionState(TrainingInSteps):
    """A model, its moving average and optimiser, and where training stands.

    Parameters
    ----------
    model : on the device.
    """

    progress = (*TrainingInSteps.progress, "best_step")

    def __init__(self, model: nn.Module, settings: DiffusionSettings, device: torch.device):
        optimizer = adamw_of(model, settings.lr, settings.weight_decay)
        super().__init__(settings, model, optimizer, settings.steps, device)
        self.average = AveragedModel(model, multi_avg_fn=averaging(settings.ema_decay))
        self.best_step = 0
        self.best = copy.deepcopy(model.state_dict())

    @abstractmethod
    def held_out(self) -> dict[str, float]:
        """What is told of held-out rows by the moving average: `heldout_loss`, and others."""

    def train(self, curves: str) -> dict[str, Any]:
        """As of any training in steps, and the step whose weights are kept."""
        return {**super().train(curves), "best_step": self.best_step}

    def line(self, means: dict[str, float]) -> dict[str, float]:
        """Mean training loss, and the held-out ones.

        Raises
        ------
        InputError
            If the loss is no number any more.
        """
        found = self.held_out()
        held_out = same_everywhere(found.pop("heldout_loss"), self.device)
        if not np.isfinite(held_out):
            raise InputError(
                f"the generator's loss is {held_out} after {self.step} steps; lower --lr "
                f"({self.settings.lr:g})"
            )
        if not self.history or held_out < min(past["heldout_loss"] for past in self.history):
            self.best, self.best_step = copy.deepcopy(self.average.module.state_dict()), self.step
        return {
            "step": self.step,
            "train_loss": means["loss"],
            "heldout_loss": held_out,
            **found,
            "seconds": self.seconds,
        }

    def update(self) -> Tensor:
        """Step by the gradients of all workers, and move the average."""
        norm = super().update()
        self.average.update_parameters(self.model)
        return norm

    def content(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {**super().content(), "average": self.average.state_dict(), "best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `content` gave."""
        super().restore(state)
        self.average.load_state_dict(state["average"])
        self.best = {name: t.to(self.device) for name, t in state["best"].items()}


def averaging(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]:
    """What `AveragedModel` updates by: a moving average that is shorter while training is young."""

    @torch.no_grad()
    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], number: Any) -> None:
        known = float(number)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + known) / (10 + known)))

    return update


def precision_for_training(precision: str, device: str) -> str:
    """What "auto", or a name, means of a generator's training on a device."""
    if precision == "auto":
        precision = default_precision(device)
    if precision != "fp16":
        return precision
    log.info("the generator is trained in fp32: gradients in fp16 would need to be scaled")
    return "fp32"
