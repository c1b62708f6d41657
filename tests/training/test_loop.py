"""The training loop's parts without Ray: learning rates, accumulation, what a resumed run needs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
import torch

from pipeline.detectors.heads.energy_head import EnergyHead
from pipeline.detectors.heads.losses import training_loss
from pipeline.encoders.unimol.finetuning.adapters import LowRankUpdate
from pipeline.training.settings import FinetuneSettings, TrainSettings
from pipeline.training.worker.batches import ResidentBatches
from pipeline.training.worker.learning_rate import epoch_schedule
from pipeline.training.worker.loop import TrainingState
from pipeline.training.worker.worker_setup import WorkerSetup

CPU = torch.device("cpu")
ID, OOD = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.ones(8, 4)


class Adapted(torch.nn.Module):
    """Features through a fixed and an updated matrix to a head, as after LoRA."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.fixed = torch.nn.Linear(4, 4).requires_grad_(False)
        self.update = LowRankUpdate(self.fixed.weight, 2, 4.0)
        self.head = EnergyHead(4, 8, 0.2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(rows @ self.update(self.fixed.weight).T)


def state_of(**changes: Any) -> TrainingState:
    settings = TrainSettings(
        data_file="none", **{"batch_size": 4, "lr": 1e-2, "epochs": 4, **changes}
    ).sized()
    model = Adapted()
    groups = [
        {"params": list(model.head.parameters()), "lr": settings.lr},
        {"params": list(model.update.parameters()), "lr": 1e-3},
    ]
    batches = ResidentBatches(ID, OOD, settings.batch_size, settings.seed, 0, 1, CPU)
    return TrainingState(settings, WorkerSetup(model, groups, batches, [ID, OOD], 4), 3, CPU)


def batches_of(state: TrainingState) -> ResidentBatches:
    return ResidentBatches(ID, OOD, state.settings.batch_size, state.settings.seed, 0, 1, CPU)


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """One worker's Ray Train context; what is reported lies in a folder."""
    monkeypatch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_rank=lambda: 0))

    def report(metrics, checkpoint):
        checkpoint.to_directory(str(tmp_path))

    monkeypatch.setattr(ray.train, "report", report)
    monkeypatch.setattr(
        ray.train, "get_checkpoint", lambda: ray.train.Checkpoint.from_directory(str(tmp_path))
    )
    return Path(tmp_path)


def test_a_step_over_two_batches_has_their_mean_gradient(monkeypatch):
    state = state_of(gradient_accumulation_steps=2)
    state.model.eval()  # no dropout: the same energies twice
    monkeypatch.setattr(state.model, "train", lambda mode=True: None)
    expected = []
    batches = list(batches_of(state).epoch(0))
    for batch in batches:
        energies = state.model(batch.id_rows), state.model(batch.ood_rows)
        loss = training_loss(*energies, state.settings)
        expected.append(torch.autograd.grad(loss, list(state.trained.values())))
    seen = []
    monkeypatch.setattr(
        state, "_step", lambda: seen.append([p.grad.clone() for p in state.trained.values()]) or 0.0
    )
    state._train(batches_of(state))
    assert len(batches) == 3 and len(seen) == 2
    for i, tensor in enumerate(seen[0]):
        torch.testing.assert_close(tensor, (expected[0][i] + expected[1][i]) / 2)
    for tensor, alone_ in zip(seen[1], expected[2]):
        torch.testing.assert_close(tensor, alone_)


def test_a_resumed_state_goes_on_to_the_same_weights(alone):
    whole = state_of(gradient_accumulation_steps=2, warmup_steps=3, lr_schedule="cosine")
    for _ in range(2):
        whole.run_epoch(batches_of(whole), [ID, OOD])
    whole.report()
    resumed = state_of(gradient_accumulation_steps=2, warmup_steps=3, lr_schedule="cosine")
    resumed.resume()
    assert resumed.epoch == 2
    for state in (whole, resumed):
        while not state.finished:
            state.run_epoch(batches_of(state), [ID, OOD])
    untouched = state_of()
    for name, tensor in whole.trained.items():
        assert torch.equal(resumed.trained[name], tensor), name
        assert torch.equal(resumed.best[name], whole.best[name]), name
        assert not torch.equal(untouched.trained[name], tensor), name
    for mine, theirs in zip(resumed.history, whole.history):
        mine, theirs = ({k: v for k, v in h.items() if "time" not in k} for h in (mine, theirs))
        assert mine == theirs
    assert torch.equal(resumed.model.fixed.weight, untouched.model.fixed.weight)


def test_finetuning_takes_smaller_batches_unless_told():
    def sizes(**changes: Any) -> tuple[int, int]:
        sized = TrainSettings(data_file="none", **changes).sized()
        return sized.batch_size, sized.eval_batch_size

    assert sizes() == (4096, 2048)
    assert sizes(finetune_encoder=True) == (256, 512)
    assert sizes(finetune_encoder=True, batch_size=7, eval_batch_size=9) == (7, 9)
    assert FinetuneSettings().freeze_layers == "0-12"


# --- learning rates --------------------------------------------------------------------------


def factors(steps: int, per_epoch: int = 2, **changes: Any) -> list[float]:
    schedule = TrainSettings(data_file="none", **changes)
    factor = epoch_schedule(schedule, per_epoch)
    return [factor(step) for step in range(steps)]


def test_the_step_schedule_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs, expected = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5), []
    for _ in range(8):
        expected += [optimizer.param_groups[0]["lr"]] * 2
        optimizer.step()
        theirs.step()
    assert factors(16, lr_step_epochs=3, lr_decay=0.5) == pytest.approx(expected)


def test_the_cosine_schedule_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs, expected = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8), []
    for _ in range(8):
        expected += [optimizer.param_groups[0]["lr"]] * 2
        optimizer.step()
        theirs.step()
    assert factors(16, lr_schedule="cosine", epochs=8) == pytest.approx(expected)


def test_warmup_rises_to_the_schedule():
    assert factors(6, lr_schedule="constant", warmup_steps=4) == [0.25, 0.5, 0.75, 1, 1, 1]
