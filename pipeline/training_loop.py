"""What each training worker runs: epochs, validation, early stopping, Ray Train checkpoints.

Every worker computes the loss over all pairs of the global batch. It knows its own energies
with their gradient and the others' by value, so the sum of the workers' gradients is the
gradient of that loss, whatever their number.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from sklearn.metrics import roc_auc_score
from torch import Tensor

from pipeline import telemetry
from pipeline.batches import Batches, GlobalBatch, ResidentBatches, StreamedBatches
from pipeline.config import TrainSettings
from pipeline.energy import EnergyHead, pair_dynamics, training_loss
from pipeline.store import KeyedTable

STATE_FILE = "state.pt"
# Share of the device's free memory that resident features may take, over all workers;
# reading them from the store takes twice as much host memory again for a while.
RESIDENT_SHARE = {"cuda": 0.5, "cpu": 0.2}


@dataclass(frozen=True)
class TrainingJob:
    """What a worker needs: settings, the features' table, the keys of each role."""

    settings: TrainSettings
    features: KeyedTable
    keys: dict[str, list[str]]
    threads: int


def training_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Train the head; returns history, best epoch and figures (the same on every worker)."""
    job: TrainingJob = config["job"]
    settings = job.settings
    device = _prepare_device(job)
    telemetry.reset_peak_memory()
    index = job.features.index()
    batches = _training_batches(job, device, index)
    validation = [
        torch.from_numpy(job.features.read_features(job.keys[role], index)).to(device)
        for role in ("id_val", "ood_val")
    ]
    state = TrainingState(settings, batches.width, device)
    state.resume()
    resumed_after = state.epoch
    while not state.finished:
        state.run_epoch(batches, validation)
        if state.finished or state.epoch % settings.checkpoint_every == 0:
            state.report()
    return {
        "history": state.history,
        "resumed_after_epoch": resumed_after,
        "best_epoch": state.best_epoch,
        "best_val_auroc": state.best_auroc,
        "train_time_seconds": state.seconds,
        "peak_gpu_memory_train_gb": telemetry.peak_gpu_memory_gb(),
        "peak_resident_memory_train_gb": telemetry.peak_resident_memory_gb(),
        "resident_features": isinstance(batches, ResidentBatches),
        "feature_width": batches.width,
    }


class TrainingState:
    """The head, its optimiser, and where training stands; all that a checkpoint holds."""

    def __init__(self, settings: TrainSettings, width: int, device: torch.device):
        self.settings, self.device = settings, device
        torch.manual_seed(settings.seed)
        self.head = EnergyHead(width, settings.hidden_dim, settings.dropout).to(device)
        self.optimizer = torch.optim.AdamW(
            self.head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        self.scheduler = torch.optim.lr_scheduler.StepLR(
            self.optimizer, settings.lr_step_epochs, settings.lr_decay
        )
        self.epoch, self.stale, self.seconds = 0, 0, 0.0
        self.best_epoch, self.best_auroc = 0, -1.0
        self.best_head = {k: v.clone() for k, v in self.head.state_dict().items()}
        self.history: list[dict[str, float]] = []

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or the validation AUROC has stopped improving."""
        return (
            self.epoch >= self.settings.epochs
            or self.stale >= self.settings.early_stopping_patience
        )

    def run_epoch(self, batches: Batches, validation: Sequence[Tensor]) -> None:
        """One pass over the training set, then validation."""
        started = time.perf_counter()
        rank = ray.train.get_context().get_world_rank()
        # Dropout's stream depends on seed, epoch and rank alone, so a resumed run repeats it.
        torch.manual_seed(int(np.random.default_rng([self.settings.seed, self.epoch, rank])
                              .integers(2**63)))  # fmt: skip
        self.head.train()
        sums: dict[str, float] = {}
        steps = 0
        for batch in batches.epoch(self.epoch):
            for name, value in self._step(batch).items():
                sums[name] = sums.get(name, 0.0) + value
            steps += 1
        self.scheduler.step()
        auroc = self._validate(validation)
        seconds = time.perf_counter() - started
        self.seconds += seconds
        self.epoch += 1
        self.stale += 1
        if auroc > self.best_auroc:
            self.best_epoch, self.best_auroc, self.stale = self.epoch, auroc, 0
            self.best_head = {k: v.clone() for k, v in self.head.state_dict().items()}
        means = {name: total / steps for name, total in sums.items()}
        self.history.append(
            {"epoch": self.epoch, **means, "val_auroc": auroc, "epoch_time_seconds": seconds}
        )

    def _step(self, batch: GlobalBatch) -> dict[str, float]:
        id_energy = _gather(self.head(batch.id_features), batch.id_total)
        ood_energy = _gather(self.head(batch.ood_features), batch.ood_total)
        loss = training_loss(id_energy, ood_energy, self.settings)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if _world() > 1:
            for parameter in self.head.parameters():
                dist.all_reduce(parameter.grad)
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), self.settings.grad_clip)
        self.optimizer.step()
        return {"loss": loss.item(), **pair_dynamics(id_energy, ood_energy)}

    @torch.no_grad()
    def _validate(self, validation: Sequence[Tensor]) -> float:
        self.head.eval()
        id_energy, ood_energy = (
            torch.cat([self.head(part) for part in x.split(self.settings.eval_batch_size)])
            for x in validation
        )
        energies = torch.cat([id_energy, ood_energy]).cpu().numpy()
        labels = np.repeat([0, 1], [len(id_energy), len(ood_energy)])
        return _same_everywhere(float(roc_auc_score(labels, energies)), self.device)

    def report(self) -> None:
        """Hand Ray Train a checkpoint of everything that a resumed run needs."""
        metrics = self.history[-1]
        if ray.train.get_context().get_world_rank() != 0:
            ray.train.report(metrics)
            return
        state = {
            "head": self.head.state_dict(),
            "best_head": self.best_head,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "progress": {name: getattr(self, name) for name in _PROGRESS},
        }
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, os.path.join(folder, STATE_FILE))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def resume(self) -> None:
        """Continue from this run's latest checkpoint, if it has one."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        state = read_state(checkpoint)
        self.head.load_state_dict(state["head"])
        self.best_head = {k: v.to(self.device) for k, v in state["best_head"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        for name, value in state["progress"].items():
            setattr(self, name, value)


_PROGRESS = ("epoch", "stale", "seconds", "best_epoch", "best_auroc", "history")


def read_state(checkpoint: ray.train.Checkpoint) -> dict[str, Any]:
    """A checkpoint's state on the CPU, without unpickling objects."""
    with checkpoint.as_directory() as folder:
        return torch.load(os.path.join(folder, STATE_FILE), map_location="cpu", weights_only=True)


def _prepare_device(job: TrainingJob) -> torch.device:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(job.threads)
    return device


def _training_batches(job: TrainingJob, device: torch.device, index: Any) -> Batches:
    context, settings = ray.train.get_context(), job.settings
    rank, world = context.get_world_rank(), context.get_world_size()
    id_keys, ood_keys = job.keys["id_train"], job.keys["ood_train"]
    width = job.features.read_features(id_keys[:1], index).shape[1]
    need = 4 * width * (len(id_keys) + len(ood_keys))
    limit = _resident_limit(settings, device)
    if _same_everywhere(float(need <= limit), device):
        tensors = (
            torch.from_numpy(job.features.read_features(keys, index)).to(device)
            for keys in (id_keys, ood_keys)
        )
        return ResidentBatches(*tensors, settings.batch_size, settings.seed, rank, world)
    return StreamedBatches(
        ray.train.get_dataset_shard("id_train"),
        ray.train.get_dataset_shard("ood_train"),
        len(id_keys),
        len(ood_keys),
        width,
        settings.batch_size,
        settings.seed,
        rank,
        world,
        device,
    )


def _resident_limit(settings: TrainSettings, device: torch.device) -> float:
    if settings.resident_gb is not None:
        return settings.resident_gb * telemetry.GIB
    share = RESIDENT_SHARE["cpu"] * psutil.virtual_memory().available / settings.num_workers
    if device.type == "cuda":
        share = min(share, RESIDENT_SHARE["cuda"] * torch.cuda.mem_get_info(device)[0])
    return share


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _gather(local: Tensor, total: int) -> Tensor:
    """All workers' energies in the global batch's order; only `local` carries a gradient."""
    world = _world()
    if world == 1:
        return local
    longest = -(-total // world)
    padded = torch.cat([local, local.new_zeros(longest - len(local))])
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded.detach())
    parts[dist.get_rank()] = padded
    return torch.stack(parts, dim=1).flatten()[:total]


def _same_everywhere(value: float, device: torch.device) -> float:
    """Worker 0's value, so that all take the same decision."""
    if _world() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(tensor, src=0)
    return tensor.item()
