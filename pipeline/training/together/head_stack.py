"""Heads side by side that go through the same epochs, each as it would alone.

What a head is alone it keeps here: its first weights, the order of its batches, the stream of its
dropout, learning rates, clipping, early stopping, best epoch and history. Products, the optimiser
and validation are computed for all of them together; losses head by head, since all pairs of more
than one head would not stay in the processor's cache.

Shapes: H heads, B molecules of a batch, w width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.detectors.heads.domain_weights import DomainWeights, robust_loss
from pipeline.detectors.heads.energy_head import EnergyHead
from pipeline.detectors.heads.losses import pair_dynamics, training_loss
from pipeline.detectors.heads.stacked_heads import StackedHeads, stacked, unstacked
from pipeline.runtime.errors import InputError
from pipeline.training.settings import TrainSettings
from pipeline.training.together.head_record import PROGRESS, HeadRecord
from pipeline.training.together.stacked_adamw import StackedAdamW, clip_gradients
from pipeline.training.worker.batches import batch_indices
from pipeline.training.worker.learning_rate import epoch_schedule
from pipeline.training.worker.loop import dropout_seed, validation_auroc

Batch = tuple[Tensor, Tensor]  # the rows of ID and of OOD molecules, (H, B) each


@dataclass(frozen=True)
class Molecules:
    """What all heads learn from; features (n, w) are standardised, and on the CPU.

    Attributes
    ----------
    domains : numbers of the ID and the OOD training molecules' domains, with --group_weights dro.
    """

    id_train: Tensor
    ood_train: Tensor
    id_val: Tensor
    ood_val: Tensor
    domains: tuple[Tensor, Tensor] | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of training molecules."""
        return len(self.id_train), len(self.ood_train)


class HeadStack:
    """Heads side by side; those that have finished leave the stack and keep their record.

    Parameters
    ----------
    settings : of each head; they differ in `trainer.OF_A_HEAD` alone.
    steps : of the optimiser in an epoch.
    """

    def __init__(self, settings: Sequence[TrainSettings], molecules: Molecules, steps: int):
        self.molecules, self.common, self.steps = molecules, settings[0], steps
        heads = [_first_weights(molecules.id_train.shape[1], each) for each in settings]
        self.heads = StackedHeads(heads)
        self.optimizer = StackedAdamW(self.heads.parameters)
        counts = [int(numbers.max()) + 1 for numbers in molecules.domains or ()]
        self.records = [
            HeadRecord(
                each, self.heads.head(i), tuple(DomainWeights(n, each.group_step) for n in counts)
            )
            for i, each in enumerate(settings)
        ]
        self.rows = list(range(len(settings)))  # of `records`, those still in the stack

    @property
    def active(self) -> list[HeadRecord]:
        """The heads that still train, in the stack's order."""
        return [self.records[row] for row in self.rows]

    @property
    def finished(self) -> bool:
        """Whether all heads are."""
        return not self.rows

    def run_epoch(self) -> None:
        """One pass over each head's batches, then validation; nothing if all have finished.

        A head's seconds are its share of those of the stack.
        """
        if self.finished:
            return
        active, started = self.active, time.perf_counter()
        means = self._train()
        trained = time.perf_counter()
        aurocs = self._validate()
        train_seconds = (trained - started) / len(active)
        eval_seconds = (time.perf_counter() - trained) / len(active)
        for place, (record, mean, auroc) in enumerate(zip(active, means, aurocs)):
            record.train_seconds += train_seconds
            record.eval_seconds += eval_seconds
            record.epoch += 1
            if isinstance(auroc, InputError):
                record.failure = str(auroc)
                continue
            record.stale += 1
            if auroc > record.best_auroc:
                record.best_epoch, record.best_auroc, record.stale = record.epoch, auroc, 0
                record.best = self.heads.head(place)
            seconds = {"epoch_time_seconds": train_seconds + eval_seconds}
            record.history.append({"epoch": record.epoch, **mean, "val_auroc": auroc, **seconds})
        self._leave()

    def _leave(self) -> None:
        staying = [i for i, record in enumerate(self.active) if not record.finished]
        if len(staying) < len(self.rows):
            self.rows = [self.rows[i] for i in staying]
            self.heads.keep(staying)
            self.optimizer.keep(staying)

    def _train(self) -> list[dict[str, float]]:
        """Each head's means over the epoch's batches."""
        active = self.active
        streams = [torch.Generator().manual_seed(dropout_seed(r.settings, r.epoch)) for r in active]
        schedules = [epoch_schedule(r.settings, self.steps) for r in active]
        sums: list[dict[str, float]] = [{} for _ in active]
        norms, count = [0.0] * len(active), 0
        batches = self._batches()
        while group := list(islice(batches, self.common.gradient_accumulation_steps)):
            for parameter in self.heads.parameters.values():
                parameter.grad = None
            for batch in group:
                for mine, values in zip(sums, self._backward(batch, 1 / len(group), streams)):
                    for name, value in values.items():
                        mine[name] = mine.get(name, 0.0) + value
            clips = [record.settings.grad_clip for record in active]
            found = clip_gradients(self.heads.parameters, clips)
            norms = [norm + new for norm, new in zip(norms, found)]
            step = self.optimizer.steps
            rates = [r.settings.lr * factor(step) for r, factor in zip(active, schedules)]
            decays = [record.settings.weight_decay for record in active]
            self.optimizer.step(self.heads.parameters, rates, decays)
            count += len(group)
        return [
            {name: total / count for name, total in mine.items()}
            | {"gradient_norm": norm / self.steps}
            for mine, norm in zip(sums, norms)
        ]

    def _batches(self) -> Iterator[Batch]:
        """Every head's batches of its own epoch and seed, in step with the others'."""
        orders = [
            batch_indices(
                self.molecules.sizes, self.common.batch_size, record.settings.seed, record.epoch
            )
            for record in self.active
        ]
        for parts in zip(*orders):
            yield tuple(torch.from_numpy(np.stack(rows)) for rows in zip(*parts))

    def _backward(
        self, batch: Batch, weight: float, streams: Sequence[torch.Generator]
    ) -> list[dict[str, float]]:
        """Add each head's gradient of its batch, times a weight; loss and dynamics of each."""
        drop = _Dropout([record.settings.dropout for record in self.active], streams)
        sources = self.molecules.id_train, self.molecules.ood_train
        energies = [
            self.heads(rows[index], drop if drop.any else None)
            for rows, index in zip(sources, batch)
        ]
        gradients, told = [], []
        for place, record in enumerate(self.active):
            mine = [energy.detach()[place].requires_grad_() for energy in energies]
            loss = self._loss(record, mine, [index[place] for index in batch])
            (weight * loss).backward()
            gradients.append([energy.grad for energy in mine])
            told.append({"loss": loss.item(), **pair_dynamics(*mine)})
        torch.autograd.backward(energies, [torch.stack(parts) for parts in zip(*gradients)])
        return told

    def _loss(
        self, record: HeadRecord, energies: Sequence[Tensor], index: Sequence[Tensor]
    ) -> Tensor:
        if self.molecules.domains is None:
            return training_loss(*energies, record.settings)
        domains = (numbers[rows] for numbers, rows in zip(self.molecules.domains, index))
        return robust_loss(*energies, *domains, record.domain_weights, record.settings)

    @torch.no_grad()
    def _validate(self) -> list[float | InputError]:
        """Each head's AUROC; an error where it has no numbers for energies any more."""
        size, heads = self.common.eval_batch_size, len(self.rows)
        energies = [
            torch.cat([self.heads(part.expand(heads, -1, -1)) for part in rows.split(size)], dim=1)
            for rows in (self.molecules.id_val, self.molecules.ood_val)
        ]
        found: list[float | InputError] = []
        for id_energy, ood_energy in zip(*energies):
            try:
                found.append(validation_auroc(id_energy, ood_energy))
            except InputError as error:
                found.append(error)
        return found

    def state(self) -> list[dict[str, Any]]:
        """What each head needs to go on, by head; of tensors, numbers and words alone."""
        place = {row: i for i, row in enumerate(self.rows)}
        return [
            {
                "progress": {name: getattr(record, name) for name in PROGRESS},
                "best": record.best,
                "domain_weights": [kind.log_weights for kind in record.domain_weights],
                "steps": self.optimizer.steps,
                **(self._tensors(place[row]) if row in place else {}),
            }
            for row, record in enumerate(self.records)
        ]

    def _tensors(self, place: int) -> dict[str, dict[str, Tensor]]:
        kept = {
            "trained": self.heads.parameters, "mean": self.optimizer.mean,
            "square": self.optimizer.square,
        }  # fmt: skip
        return {
            kind: {name: unstacked(name, tensor, place) for name, tensor in tensors.items()}
            for kind, tensors in kept.items()
        }

    def resume(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from what `state` gave."""
        for record, state in zip(self.records, states):
            record.best = state["best"]
            for name, value in state["progress"].items():
                setattr(record, name, value)
            for kind, weights in zip(record.domain_weights, state["domain_weights"]):
                kind.log_weights = weights
        self._leave()
        going = [states[row] for row in self.rows]
        if not going:
            return
        self.optimizer.steps = going[0]["steps"]
        for name, parameter in self.heads.parameters.items():
            parameter.data = stacked(name, [state["trained"][name] for state in going])
            self.optimizer.mean[name] = stacked(name, [state["mean"][name] for state in going])
            self.optimizer.square[name] = stacked(name, [state["square"][name] for state in going])


class _Dropout:
    """Dropout of (H, B, width), each head with its share and from its stream, as alone.

    torch draws the mask of a head alone by the same call; heads without dropout draw nothing.
    """

    def __init__(self, shares: Sequence[float], streams: Sequence[torch.Generator]):
        self.shares, self.streams, self.any = shares, streams, any(shares)

    def __call__(self, values: Tensor) -> Tensor:
        masks = torch.ones_like(values)
        for mask, share, stream in zip(masks, self.shares, self.streams):
            if share:
                mask.bernoulli_(1 - share, generator=stream).div_(1 - share)
        return values * masks


def _first_weights(width: int, settings: TrainSettings) -> EnergyHead:
    torch.manual_seed(settings.seed)
    return EnergyHead(width, settings.hidden_dim, settings.dropout)
