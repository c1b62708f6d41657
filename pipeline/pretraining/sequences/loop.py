"""What each worker of a pretraining on sequences runs.

A step's parts of sequences and their masks depend on the seed and the epoch alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor

from pipeline.encoders.unimol.precision import PRECISIONS, autocast
from pipeline.pretraining.sequences.crops import HELD_OUT, Corpus, Parts, Proteins
from pipeline.pretraining.sequences.masking import MaskedBatch, Shares
from pipeline.pretraining.sequences.model import LossSums, loss_sums, new_model, rounded
from pipeline.pretraining.settings import PretrainSettings
from pipeline.pretraining.training import Pretraining, seed_dropout
from pipeline.runtime.errors import InputError
from pipeline.runtime.train.optimizers import adamw_of
from pipeline.runtime.train.ray_train import rank, world
from pipeline.runtime.train.training_in_steps import over_workers

BETAS, EPSILON = (0.9, 0.98), 1e-8  # of AdamW, as ESM-2 has them


@dataclass(frozen=True)
class SequenceJob:
    """What a worker needs.

    Attributes
    ----------
    settings : with the precision decided.
    proteins : `Proteins` to train on and those held out, in the cluster's memory.
    """

    settings: PretrainSettings
    proteins: ray.ObjectRef


class SequenceState(Pretraining):
    """The model, its optimiser, and where pretraining stands; all that a checkpoint holds.

    Attributes
    ----------
    residues_seen : in all steps, those of all workers.
    """

    progress = (*Pretraining.progress, "residues_seen")

    def __init__(self, job: SequenceJob, device: torch.device):
        settings = job.settings
        train, holdout = ray.get(job.proteins)
        self.train_set = training_corpus(train, settings)
        self.holdout = judging_corpus(holdout, settings)
        self._batch_tokens = settings.batch_tokens
        model = new_model(settings).to(device)
        optimizer = adamw_of(model, settings.lr, settings.weight_decay, betas=BETAS, eps=EPSILON)
        self._epoch = -1, *self._of_epoch(0)
        self.steps_an_epoch = len(self._epoch[2])
        steps = settings.steps or self.steps_an_epoch * settings.epochs
        super().__init__(settings, model, optimizer, steps, device)
        self.dtype = PRECISIONS[settings.precision]
        self.residues_seen = 0

    def _of_epoch(self, epoch: int) -> tuple[Parts, list[np.ndarray]]:
        parts = self.train_set.parts(epoch)
        return parts, self.train_set.steps(parts, epoch, self._batch_tokens)

    def train(self, curves: str) -> dict[str, Any]:
        """As of every pretraining; and `stored`, the held-out losses of the weights in the file."""
        outcome = super().train(curves)
        tensors = rounded(self.model.state_dict(), PRECISIONS[self.settings.weights_precision])
        self.model.load_state_dict(tensors, strict=False)
        return {**outcome, "residues_seen": self.residues_seen, "stored": self.held_out()}

    def one_step(self) -> dict[str, float]:
        """One step of the optimiser; the batch's losses."""
        epoch, number = divmod(self.step, self.steps_an_epoch)
        if self._epoch[0] != epoch:
            self._epoch = epoch, *self._of_epoch(epoch)
        _, parts, steps = self._epoch
        seed_dropout(self.settings.seed, self.step)
        mine = steps[number][rank() :: world()]
        batches = list(self.train_set.masked(parts, mine, epoch, self.settings.tokens_at_once))
        told = sum(int(batch.masked.sum()) for batch in batches)
        told = over_workers(torch.tensor(told, dtype=torch.float64), self.device).clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        sums = []
        for batch in batches:
            sums.append(self._forward(batch))
            (sums[-1].loss / told.float()).backward()
        norm = self.update()
        self.residues_seen += int(parts.length[steps[number]].sum())
        return {**self._means(sums), "gradient_norm": norm}

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Losses of the held-out proteins, whole up to the context, under masks that never change.

        Raises
        ------
        InputError
            If the loss is no number any more.
        """
        self.model.eval()
        parts = self.holdout.one_part_each()
        mine = np.arange(len(self.holdout))[rank() :: world()]
        batches = self.holdout.masked(parts, mine, HELD_OUT, self.settings.tokens_at_once)
        means = self._means(self._forward(batch) for batch in batches)
        if not np.isfinite(means["loss"]):
            raise InputError(
                f"the held-out loss is {means['loss']} after {self.step} steps; lower --lr "
                f"({self.settings.lr:g})"
            )
        return {f"heldout_{name}": value for name, value in means.items()}

    def _forward(self, batch: MaskedBatch) -> LossSums:
        with autocast(self.device, self.dtype):
            return loss_sums(self.model, batch.to(self.device))

    def _means(self, sums: Iterable[LossSums]) -> dict[str, float]:
        """Means over the residues that are hidden, of all workers."""
        nothing = torch.zeros(len(LossSums._fields), dtype=torch.float64, device=self.device)
        total = LossSums(*over_workers(sum(map(_plain, sums), nothing), self.device).tolist())
        hidden = max(total.hidden, 1)
        return {"loss": total.hidden_loss / hidden, "accuracy": total.hits / hidden}


def training_corpus(proteins: Proteins, settings: PretrainSettings) -> Corpus:
    """Proteins, cut and masked as the settings say."""
    shares = Shares(settings.mask_share, settings.unmasked_share, settings.random_share)
    return Corpus(proteins, settings.crop_length, shares, settings.seed)


def judging_corpus(proteins: Proteins, settings: PretrainSettings) -> Corpus:
    """Proteins, whole up to the context; what is to be told is hidden, all of it."""
    shares = Shares(settings.mask_share, unmasked=0, random=0)
    return Corpus(proteins, settings.context - 2, shares, settings.seed)


def _plain(sums: LossSums) -> Tensor:
    return torch.stack([value.detach().double() for value in sums])
