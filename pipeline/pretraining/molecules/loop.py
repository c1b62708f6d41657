"""What each pretraining worker runs: steps on masked molecules, held-out losses, checkpoints.

A step's molecules and their masks depend on the seed, the epoch and the molecule alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
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
from pipeline.pretraining.molecules.masked_molecules import HELD_OUT, PretrainingMolecules
from pipeline.pretraining.settings import PretrainSettings
from pipeline.pretraining.training import Pretraining, seed_dropout
from pipeline.runtime.train.optimizers import adamw_of
from pipeline.runtime.train.ray_train import rank, world
from pipeline.runtime.train.training_in_steps import over_workers
from pipeline.store.keyed_table import KeyedTable

BETAS, EPSILON = (0.9, 0.99), 1e-6  # of AdamW, as Uni-Mol has them


@dataclass(frozen=True)
class PretrainJob:
    """What a worker needs.

    Attributes
    ----------
    settings : with the precision decided.
    conformers : the store's table of them.
    """

    settings: PretrainSettings
    conformers: KeyedTable
    train_keys: list[str]
    holdout_keys: list[str]


class PretrainingState(Pretraining):
    """The model, its optimiser, and where pretraining stands; all that a checkpoint holds."""

    def __init__(self, job: PretrainJob, device: torch.device):
        settings = job.settings
        vocabulary = Vocabulary(TOKEN_ORDERS[settings.token_order])
        index = job.conformers.index()
        self.train_set, self.holdout = (
            PretrainingMolecules(job.conformers.read(keys, index), vocabulary, settings)
            for keys in (job.train_keys, job.holdout_keys)
        )
        model = new_model(settings, vocabulary).to(device)
        optimizer = adamw_of(model, settings.lr, settings.weight_decay, betas=BETAS, eps=EPSILON)
        self.steps_an_epoch = math.ceil(len(self.train_set) / settings.batch_size)
        super().__init__(settings, model, optimizer, self.steps_an_epoch * settings.epochs, device)
        self.dtype = PRECISIONS[settings.precision]
        self.budget = training_budget_for(
            device, settings.batch_size, model.config, model.config.layers
        )
        self.weights = loss_weights(settings)
        self._order = -1, np.empty(0, int)

    def one_step(self) -> dict[str, float]:
        """One step of the optimiser; the batch's losses."""
        epoch, number = divmod(self.step, self.steps_an_epoch)
        if self._order[0] != epoch:
            rng = np.random.default_rng([self.settings.seed, epoch])
            self._order = epoch, rng.permutation(len(self.train_set))
        size = self.settings.batch_size
        mine = self._order[1][number * size : (number + 1) * size][rank() :: world()]
        seed_dropout(self.settings.seed, self.step)
        batches = list(self.train_set.masked(mine, epoch, self.budget))
        counts = over_workers(_counts(batches), self.device)
        self.optimizer.zero_grad(set_to_none=True)
        parts = []
        for batch in batches:
            sums = self._forward(batch)
            total_loss(mean_losses(_over_batch(sums, counts)), self.weights).backward()
            parts.append(_plain(sums))
        norm = self.update()
        means = mean_losses(_added(parts, self.device))
        loss = total_loss(means, self.weights)
        return {"loss": loss.item(), **_items(means), "gradient_norm": norm}

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
    return LossSums(*over_workers(sum(parts, nothing), device))


def _items(means: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in means.items()}
