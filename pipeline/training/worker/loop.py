"""What each training worker runs: epochs, validation, early stopping, Ray Train checkpoints.

Every worker computes the loss over all pairs of the global batch. It knows its own energies
with their gradient and the others' by value, so the sum of the workers' gradients is the
gradient of that loss, whatever their number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.detectors.heads.domain_weights import DomainWeights, robust_loss
from pipeline.detectors.heads.losses import pair_dynamics, training_loss
from pipeline.runtime import dashboard_metrics as metrics
from pipeline.runtime import telemetry
from pipeline.runtime.errors import InputError
from pipeline.runtime.train.optimizers import AdamW
from pipeline.runtime.train.ray_train import (
    add_gradients,
    last_checkpoint,
    prepare_device,
    rank,
    read_state,
    report,
    same_everywhere,
    world,
)
from pipeline.training.settings import TrainSettings
from pipeline.training.worker.batches import Batches, GlobalBatch, ResidentBatches, Rows
from pipeline.training.worker.learning_rate import epoch_schedule
from pipeline.training.worker.worker_setup import TrainingJob, WorkerSetup, set_up


def training_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Train the model; returns history, best epoch and figures (the same on every worker)."""
    job: TrainingJob = config["job"]
    device = prepare_device(job.threads)
    setup = set_up(job, device, lambda value: same_everywhere(value, device))
    steps = math.ceil(max(len(job.keys["id_train"]), len(job.keys["ood_train"]))
                      / job.settings.batch_size)  # fmt: skip
    state = TrainingState(job.settings, setup, steps, device)
    state.resume()
    resumed_after = state.epoch
    while not state.finished:
        state.run_epoch(setup.batches, setup.validation)
        if state.finished or state.epoch % job.settings.checkpoint_every == 0:
            state.report()
    parameters = list(setup.model.parameters())
    return {
        "history": state.history,
        "resumed_after_epoch": resumed_after,
        "best_epoch": state.best_epoch,
        "best_val_auroc": state.best_auroc,
        "train_time_seconds": state.train_seconds,
        "eval_time_seconds": state.eval_seconds,
        **state.peaks,
        "resident": isinstance(setup.batches, ResidentBatches),
        "feature_width": setup.feature_width,
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }


class TrainingState:
    """The model, its optimiser, and where training stands; all that a checkpoint holds.

    Parameters
    ----------
    batches : batches of an epoch.
    """

    def __init__(
        self, settings: TrainSettings, setup: WorkerSetup, batches: int, device: torch.device
    ):
        self.settings, self.device, self.model = settings, device, setup.model
        self.trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = AdamW(setup.groups, weight_decay=settings.weight_decay)
        steps = math.ceil(batches / settings.gradient_accumulation_steps)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, epoch_schedule(settings, steps)
        )
        self.epoch, self.stale = 0, 0
        self.train_seconds = self.eval_seconds = 0.0
        self.best_epoch, self.best_auroc = 0, -1.0
        self.best = self._copy()
        self.history: list[dict[str, float]] = []
        self.domain_weights = tuple(
            DomainWeights(count, settings.group_step) for count in setup.domains
        )
        self.peaks: dict[str, float] = {}

    def _copy(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.trained.items()}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or the validation AUROC has stopped improving."""
        return (
            self.epoch >= self.settings.epochs
            or self.stale >= self.settings.early_stopping_patience
        )

    def run_epoch(self, batches: Batches, validation: Sequence[Rows]) -> None:
        """One pass over the training set, then validation."""
        torch.manual_seed(dropout_seed(self.settings, self.epoch, rank()))
        means, train_seconds = self._phase("train", lambda: self._train(batches))
        auroc, eval_seconds = self._phase("eval", lambda: self._validate(validation))
        self.train_seconds += train_seconds
        self.eval_seconds += eval_seconds
        self.epoch += 1
        self.stale += 1
        if auroc > self.best_auroc:
            self.best_epoch, self.best_auroc, self.stale = self.epoch, auroc, 0
            self.best = self._copy()
        seconds = train_seconds + eval_seconds
        self.history.append(
            {"epoch": self.epoch, **means, "val_auroc": auroc, "epoch_time_seconds": seconds}
        )
        if rank() == 0:
            metrics.show("training_loss", means["loss"])
            metrics.show("validation_auroc", auroc)

    def _phase(self, name: str, work: Callable[[], Any]) -> tuple[Any, float]:
        """What the work returns and its seconds; its peaks of memory are noted."""
        telemetry.reset_peak_memory()
        started = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - started
        for key, now in (
            (f"peak_gpu_memory_{name}_gb", telemetry.peak_gpu_memory_gb()),
            (f"peak_resident_memory_{name}_gb", telemetry.peak_resident_memory_gb()),
        ):
            self.peaks[key] = max(now, self.peaks.get(key, 0.0))
        return result, seconds

    def _train(self, batches: Batches) -> dict[str, float]:
        self.model.train()
        sums: dict[str, float] = {}
        norms: list[float] = []
        count = 0
        for group in _grouped(batches.epoch(self.epoch), self.settings.gradient_accumulation_steps):
            self.optimizer.zero_grad(set_to_none=True)
            for batch in group:
                for name, value in self._backward(batch, 1 / len(group)).items():
                    sums[name] = sums.get(name, 0.0) + value
            norms.append(self._step())
            count += len(group)
        means = {name: total / count for name, total in sums.items()}
        return {**means, "gradient_norm": sum(norms) / len(norms)}

    def _backward(self, batch: GlobalBatch, weight: float) -> dict[str, float]:
        """Add a batch's gradient, times a weight."""
        id_energy = _gather(self.model(batch.id_rows), batch.id_total)
        ood_energy = _gather(self.model(batch.ood_rows), batch.ood_total)
        if batch.domains is None:
            loss = training_loss(id_energy, ood_energy, self.settings)
        else:
            loss = robust_loss(
                id_energy, ood_energy, *batch.domains, self.domain_weights, self.settings
            )
        (weight * loss).backward()
        return {"loss": loss.item(), **pair_dynamics(id_energy, ood_energy)}

    def _step(self) -> float:
        """Step the optimiser; the gradient's norm before it was clipped."""
        parameters = list(self.trained.values())
        add_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.grad_clip)
        self.optimizer.step()
        self.scheduler.step()
        return norm.item()

    @torch.no_grad()
    def _validate(self, validation: Sequence[Rows]) -> float:
        self.model.eval()
        size = self.settings.eval_batch_size
        id_energy, ood_energy = (
            torch.cat([self.model(rows[i : i + size]) for i in range(0, len(rows), size)])
            for rows in validation
        )
        return same_everywhere(validation_auroc(id_energy, ood_energy), self.device)

    def report(self) -> None:
        """Hand Ray Train a checkpoint of everything that a resumed run needs."""
        report(self.history[-1], self._state)

    def _state(self) -> dict[str, Any]:
        return {
            "trained": self._copy(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "domain_weights": [kind.log_weights for kind in self.domain_weights],
            "progress": {name: getattr(self, name) for name in _PROGRESS},
        }

    def resume(self) -> None:
        """Continue from this run's latest checkpoint, if it has one."""
        checkpoint = last_checkpoint()
        if checkpoint is None:
            return
        state = read_state(checkpoint)
        self.model.load_state_dict(state["trained"], strict=False)
        self.best = {k: v.to(self.device) for k, v in state["best"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        for kind, weights in zip(self.domain_weights, state.get("domain_weights", [])):
            kind.log_weights = weights
        for name, value in state["progress"].items():
            setattr(self, name, value)


_PROGRESS = (
    "epoch", "stale", "train_seconds", "eval_seconds", "best_epoch", "best_auroc", "history",
    "peaks",
)  # fmt: skip


def dropout_seed(settings: TrainSettings, epoch: int, rank: int = 0) -> int:
    """The seed of dropout's stream: by these alone, so that a resumed run repeats it."""
    return int(np.random.default_rng([settings.seed, epoch, rank]).integers(2**63))


def validation_auroc(id_energy: Tensor, ood_energy: Tensor) -> float:
    """AUROC of energies (n_id,) and (n_ood,), by ranks; a tie counts half.

    Raises
    ------
    InputError
        If an energy is not a number.
    """
    id_values, ood_values = (energy.detach().cpu().numpy() for energy in (id_energy, ood_energy))
    if not (np.isfinite(id_values).all() and np.isfinite(ood_values).all()):
        raise InputError(
            "training diverged: validation energies are not numbers any more; lower --lr"
        )
    ranked = np.sort(id_values)
    below, up_to = (
        np.searchsorted(ranked, ood_values, side).sum(dtype=np.int64) for side in ("left", "right")
    )
    return float(below + up_to) / (2 * len(id_values) * len(ood_values))


def _grouped(batches: Iterable[GlobalBatch], size: int) -> Iterator[list[GlobalBatch]]:
    batches = iter(batches)
    while group := list(islice(batches, size)):
        yield group


def _gather(local: Tensor, total: int) -> Tensor:
    """All workers' energies in the global batch's order; only `local` carries a gradient."""
    workers = world()
    if workers == 1:
        return local
    longest = -(-total // workers)
    padded = torch.cat([local, local.new_zeros(longest - len(local))])
    parts = [torch.empty_like(padded) for _ in range(workers)]
    dist.all_gather(parts, padded.detach())
    parts[dist.get_rank()] = padded
    return torch.stack(parts, dim=1).flatten()[:total]
