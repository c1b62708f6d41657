"""What each pretraining worker runs: steps on masked molecules, held-out losses, checkpoints.

A step's molecules and their masks depend on the seed, the epoch and the molecule alone. Workers
share a step's molecules, and the loss is a mean over all of them, so the sum of the workers'
gradients is the gradient of one worker with the whole batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.encoders.unimol.batching import training_budget_for
from pipeline.encoders.unimol.model import UniMolConfig
from pipeline.encoders.unimol.precision import PRECISIONS, autocast
from pipeline.encoders.unimol.pretraining.masking import MaskedBatch
from pipeline.encoders.unimol.pretraining.objective import (
    LossSums,
    LossWeights,
    PretrainingUniMol,
    mean_losses,
    start,
    total_loss,
)
from pipeline.encoders.unimol.tokens import TOKEN_ORDERS, Vocabulary
from pipeline.pretraining.masked_molecules import HELD_OUT, PretrainingMolecules
from pipeline.pretraining.settings import PretrainSettings
from pipeline.runtime import telemetry
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
    world,
)
from pipeline.runtime.text import records_csv
from pipeline.store.keyed_table import KeyedTable

BETAS, EPSILON = (0.9, 0.99), 1e-6  # of AdamW, as Uni-Mol has them


@dataclass(frozen=True)
class PretrainJob:
    """What a worker needs.

    Attributes
    ----------
    settings : with the precision decided.
    conformers : the store's table of them.
    curves : path or URI of the file that shows how far the run is.
    """

    settings: PretrainSettings
    conformers: KeyedTable
    train_keys: list[str]
    holdout_keys: list[str]
    threads: int
    curves: str


def pretraining_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Pretrain; returns the curves and figures (the same on every worker)."""
    job: PretrainJob = config["job"]
    state = PretrainingState(job, prepare_device(job.threads))
    resumed_after = state.resume()
    if not state.history:
        state.history.append({"step": 0, "epoch": 0.0, **state.held_out()})
    while state.step < state.steps:
        state.run(min(state.steps, state.step + job.settings.checkpoint_every))
        report(state.history[-1], state.content)
        if rank() == 0:
            write_atomically(job.curves, records_csv(state.history))
    return {
        "history": state.history,
        "steps": state.steps,
        "resumed_after_step": resumed_after,
        "train_time_seconds": state.seconds,
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "peak_gpu_memory_train_gb": telemetry.peak_gpu_memory_gb(),
        "peak_resident_memory_train_gb": telemetry.peak_resident_memory_gb(),
    }


class PretrainingState:
    """The model, its optimiser, and where pretraining stands; all that a checkpoint holds."""

    def __init__(self, job: PretrainJob, device: torch.device):
        self.settings, self.device = job.settings, device
        vocabulary = Vocabulary(TOKEN_ORDERS[job.settings.token_order])
        index = job.conformers.index()
        self.train, self.holdout = (
            PretrainingMolecules(job.conformers.read(keys, index), vocabulary, job.settings)
            for keys in (job.train_keys, job.holdout_keys)
        )
        self.model = new_model(job.settings, vocabulary).to(device)
        self.dtype = PRECISIONS[job.settings.precision]
        self.optimizer = adamw_of(
            self.model, job.settings.lr, job.settings.weight_decay, betas=BETAS, eps=EPSILON
        )
        self.steps_an_epoch = math.ceil(len(self.train) / job.settings.batch_size)
        self.steps = self.steps_an_epoch * job.settings.epochs
        self.schedule = linear_schedule(self.steps, job.settings.warmup_share)
        self.budget = training_budget_for(
            device, job.settings.batch_size, self.model.config, self.model.config.layers
        )
        self.weights = loss_weights(job.settings)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self._order = -1, np.empty(0, int)

    def run(self, until: int) -> None:
        """Train up to a step; then note the mean training losses and the held-out ones."""
        started, first = time.perf_counter(), self.step
        self.model.train()
        sums: dict[str, float] = {}
        while self.step < until:
            for name, value in self._step().items():
                sums[name] = sums.get(name, 0.0) + value
            self.step += 1
        self.seconds += time.perf_counter() - started
        means = {f"train_{name}": total / (self.step - first) for name, total in sums.items()}
        self.history.append(
            {
                "step": self.step,
                "epoch": self.step / self.steps_an_epoch,
                **means,
                **self.held_out(),
                "seconds": self.seconds,
            }
        )

    def _step(self) -> dict[str, float]:
        """One step of the optimiser; the batch's losses."""
        epoch, number = divmod(self.step, self.steps_an_epoch)
        if self._order[0] != epoch:
            rng = np.random.default_rng([self.settings.seed, epoch])
            self._order = epoch, rng.permutation(len(self.train))
        size = self.settings.batch_size
        mine = self._order[1][number * size : (number + 1) * size][rank() :: world()]
        torch.manual_seed(_seed(self.settings.seed, self.step, rank()))  # of dropout
        batches = list(self.train.masked(mine, epoch, self.budget))
        counts = _over_workers(_counts(batches), self.device)
        self.optimizer.zero_grad(set_to_none=True)
        parts = []
        for batch in batches:
            sums = self._forward(batch)
            total_loss(mean_losses(_over_batch(sums, counts)), self.weights).backward()
            parts.append(_plain(sums))
        parameters = list(self.model.parameters())
        add_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self.schedule(self.step)
        self.optimizer.step()
        means = mean_losses(_added(parts, self.device))
        loss = total_loss(means, self.weights)
        return {"loss": loss.item(), **_items(means), "gradient_norm": norm.item()}

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Losses of the held-out molecules, under masks that never change."""
        self.model.eval()
        mine = np.arange(len(self.holdout))[rank() :: world()]
        batches = self.holdout.masked(mine, HELD_OUT, self.budget)
        parts = [_plain(self._forward(batch)) for batch in batches]
        means = mean_losses(_added(parts, self.device))
        named = {"loss": total_loss(means, self.weights).item(), **_items(means)}
        return {f"heldout_{name}": value for name, value in named.items()}

    def _forward(self, batch: MaskedBatch) -> LossSums:
        with autocast(self.device, self.dtype):
            return self.model(batch.to(self.device))

    def content(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": {name: getattr(self, name) for name in ("step", "seconds", "history")},
        }

    def resume(self) -> int:
        """Continue from this run's latest checkpoint, if it has one; its step."""
        checkpoint = last_checkpoint()
        if checkpoint is not None:
            state = read_state(checkpoint)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name, value in state["progress"].items():
                setattr(self, name, value)
        return self.step


def model_config(settings: PretrainSettings) -> UniMolConfig:
    """The model's sizes."""
    return UniMolConfig(settings.layers, settings.width, settings.ffn_width, settings.heads)


def new_model(settings: PretrainSettings, vocabulary: Vocabulary) -> PretrainingUniMol:
    """The model that pretraining starts from."""
    return start(
        PretrainingUniMol(model_config(settings), vocabulary.pad, settings.dropout), settings.seed
    )


def loss_weights(settings: PretrainSettings) -> LossWeights:
    """What each loss counts."""
    return LossWeights(
        settings.token_weight, settings.coord_weight, settings.distance_weight,
        settings.norm_weight, settings.norm_weight,
    )  # fmt: skip


def _counts(batches: Sequence[MaskedBatch]) -> Tensor:
    """Masked atoms, their distances, and molecules of some micro-batches, before any forward."""
    atoms = distances = molecules = 0
    for batch in batches:
        sizes = batch.real.sum(dim=1)
        masked = batch.masked.sum(dim=1)
        atoms += int(masked.sum())
        distances += int((masked * sizes).sum())
        molecules += len(sizes)
    return torch.tensor([atoms, distances, molecules], dtype=torch.float64)


def _over_batch(sums: LossSums, counts: Tensor) -> LossSums:
    """A part's sums, with what the whole batch's means are taken over."""
    atoms, distances, molecules = counts
    return sums._replace(atoms=atoms, distances=distances, molecules=molecules)


def _plain(sums: LossSums) -> Tensor:
    return torch.stack([value.detach().double() for value in sums])


def _added(parts: Sequence[Tensor], device: torch.device) -> LossSums:
    """Sums over micro-batches and workers."""
    nothing = torch.zeros(len(LossSums._fields), dtype=torch.float64, device=device)
    return LossSums(*_over_workers(sum(parts, nothing), device))


def _over_workers(values: Tensor, device: torch.device) -> Tensor:
    values = values.to(device)
    if world() > 1:
        dist.all_reduce(values)
    return values


def _items(means: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in means.items()}


def _seed(*numbers: int) -> int:
    return int(np.random.default_rng(numbers).integers(2**63))
