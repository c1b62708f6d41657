"""Finetuning and pretraining on a GPU: one step against the CPU in float32, and steps a second.

As in the jobs, torch's deterministic algorithms are on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from bench.cuda.molecules import Conformer
from bench.report import markdown, seconds_of
from pipeline.detectors.losses import training_loss
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.finetuning.trunk import ComputedRows, Rows, StoredRows, TokenRows
from pipeline.pretraining.loop import PretrainingState, PretrainJob
from pipeline.pretraining.settings import PretrainSettings
from pipeline.training.batches import ResidentBatches
from pipeline.training.finetuning.plan import plan_finetuning
from pipeline.training.settings import TrainSettings
from pipeline.training.worker_setup import build_energy_model

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CPU = torch.device("cpu")
LIMIT = 1e-3  # of the loss and the gradient, relative
FEW, STEPS, MOST_ATOMS = 32, 20, 40
TRAINED = 1024  # molecules that finetuning's speed is measured on
PLANS = {
    "last two layers": {"freeze_layers": "0-12"},
    "LoRA in the last two": {"freeze_layers": "0-12", "adapter": "lora"},
    "all layers": {"freeze_layers": "none"},
}


@contextmanager
def deterministic() -> Iterator[None]:
    """As `pipeline.runtime.ray_train.prepare_device` has it."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def rows_of(
    settings: TrainSettings, molecules: list[Conformer], device: torch.device, stored: bool
) -> tuple[Any, Rows]:
    """The plan and the rows that a training worker would have."""
    encoder = load_encoder(
        "unimol", weights=settings.weights, device=str(device), precision=settings.precision
    )
    plan = plan_finetuning(settings, 15)
    prepared = [encoder._tokenize(*molecule) for molecule in molecules]
    if plan.from_tokens:
        return plan, TokenRows(prepared, encoder.vocabulary.pad)
    if stored:
        return plan, StoredRows(
            encoder.encode_with_trunk(prepared, plan.cut, settings.trunk_precision)[1]
        )
    return plan, ComputedRows(prepared, encoder.vocabulary.pad, encoder.forward, plan.cut)


def first_step(
    settings: TrainSettings, molecules: list[Conformer], device: torch.device
) -> tuple[float, Tensor]:
    """Loss and gradient, as one vector, of half of the molecules as ID and half as OOD."""
    settings = replace(settings, dropout=0.0, encoder_dropout=0.0)
    plan, rows = rows_of(settings, molecules, device, stored=False)
    torch.manual_seed(settings.seed)
    model, _ = build_energy_model(settings, plan, device)
    model.train()
    half = len(molecules) // 2
    loss = training_loss(model(rows[:half]), model(rows[half:]), settings)
    loss.backward()
    return loss.item(), flat_gradient(model)


def flat_gradient(model: torch.nn.Module) -> Tensor:
    """All gradients as one vector on the CPU."""
    return torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])


def difference(made: Tensor, expected: Tensor) -> float:
    """Relative."""
    return ((made - expected).norm() / expected.norm()).item()


def steps_a_second(settings: TrainSettings, molecules: list[Conformer], stored: bool) -> float:
    """Steps of the optimiser a second over whole epochs; the first epoch is not counted."""
    plan, rows = rows_of(settings, molecules, DEVICE, stored)
    torch.manual_seed(settings.seed)
    model, groups = build_energy_model(settings, plan, DEVICE)
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    half = len(molecules) // 2
    batches = ResidentBatches(
        rows[:half], rows[half:], settings.batch_size, settings.seed, 0, 1, CPU
    )
    model.train()
    done = 0

    def epoch(number: int) -> None:
        nonlocal done
        for batch in batches.epoch(number):
            optimizer.zero_grad(set_to_none=True)
            training_loss(model(batch.id_rows), model(batch.ood_rows), settings).backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            optimizer.step()
            norm.item()
            done += 1

    epoch(0)
    done = 0
    seconds = seconds_of(lambda: [epoch(number) for number in (1, 2)])
    return done / seconds


def finetuning(molecules: list[Conformer], weights: str) -> list[str]:
    """Loss and gradient of a step, and the speed, by what is trained."""
    rows, wrong = [], []
    molecules = [m for m in molecules if len(m[0]) <= MOST_ATOMS][-TRAINED:]
    few = molecules[:FEW]
    with deterministic():
        for name, given in PLANS.items():
            settings = TrainSettings(
                data_file="-", weights=weights, finetune_encoder=True, precision="fp32", **given
            ).sized()
            loss, gradient = first_step(settings, few, CPU)
            told = []
            for precision in ("fp32", "bf16"):
                lower = replace(settings, precision=precision)
                loss_there, gradient_there = first_step(lower, few, DEVICE)
                off = abs(loss_there / loss - 1), difference(gradient_there, gradient)
                told += [f"{error:.1e}" for error in off]
                if precision == "fp32" and max(off) > LIMIT:
                    wrong.append(f"{name}: {off}")
            for stored in (True, False) if given["freeze_layers"] != "none" else (False,):
                rates = (
                    steps_a_second(replace(settings, precision=p), molecules, stored)
                    for p in ("bf16", "fp32")
                )
                source = "stored" if stored else "computed"
                rows.append((name, source, *told, *(f"{rate:.1f}" for rate in rates)))
                print(*rows[-1], flush=True)  # a slow one shall not hide the others
    header = ("trained", "trunk", "loss, fp32", "gradient, fp32", "loss, bf16", "gradient, bf16",
              "steps/s, bf16", "steps/s, fp32")  # fmt: skip
    if wrong:
        raise AssertionError("; ".join(wrong))
    return [
        f"Relative differences to the CPU in fp32, {len(few)} molecules, no dropout; at most "
        f"{LIMIT:.0e} in fp32 is allowed. Steps of 256 ID and 256 OOD molecules, with dropout.",
        "",
        *markdown(header, rows),
    ]


class Table:
    """Stands for the store's conformers."""

    def __init__(self, molecules: list[Conformer]):
        self.rows = pa.table(
            {
                "atoms": pa.array([atoms for atoms, _ in molecules], pa.list_(pa.uint8())),
                "coords": pa.array([xyz.ravel() for _, xyz in molecules], pa.list_(pa.float32())),
            }
        )

    def index(self) -> None:
        """None is needed."""

    def read(self, keys: list[int], index: None) -> pa.Table:
        """Rows by their numbers."""
        return self.rows.take(keys)


def pretraining_state(
    molecules: list[Conformer], device: torch.device, held: int, **changes: Any
) -> PretrainingState:
    """What a pretraining worker holds."""
    settings = PretrainSettings(data_file="-", **changes)
    count = len(molecules)
    job = PretrainJob(
        settings, Table(molecules), list(range(held, count)), list(range(held)), 1, ""
    )
    return PretrainingState(job, device)


def pretraining(molecules: list[Conformer], weights: str) -> list[str]:
    """Losses and gradient of a step against the CPU, and the speed of steps of 128 molecules."""
    few = [m for m in molecules if len(m[0]) <= MOST_ATOMS][: FEW + 4]
    rows, lines = [], []
    with deterministic(), mock.patch("pipeline.pretraining.loop.rank", lambda: 0):
        made = {}
        for device, precision in ((CPU, "fp32"), (DEVICE, "fp32"), (DEVICE, "bf16")):
            state = pretraining_state(
                few, device, 4, precision=precision, dropout=0.0, batch_size=FEW
            )
            state.model.train()
            losses = state._step()
            made[str(device), precision] = losses, flat_gradient(state.model), state.held_out()
        losses, gradient, held_out = made["cpu", "fp32"]
        for precision in ("fp32", "bf16"):
            theirs, their_gradient, their_held_out = made[str(DEVICE), precision]
            off = [abs(theirs[k] / losses[k] - 1) for k in ("loss", "token", "coord", "distance")]
            off.append(difference(their_gradient, gradient))
            off.append(abs(their_held_out["heldout_loss"] / held_out["heldout_loss"] - 1))
            rows.append((precision, *(f"{error:.1e}" for error in off)))
            if precision == "fp32" and max(off) > LIMIT:
                raise AssertionError(f"fp32 differs from the CPU: {off}")
        for precision in ("bf16", "fp32"):
            state = pretraining_state(molecules, DEVICE, 100, precision=precision, epochs=100)
            state.model.train()
            _steps(state, 5)
            seconds = seconds_of(lambda s=state: _steps(s, STEPS))
            masking = seconds_of(
                lambda s=state: list(
                    s.train.masked(np.arange(128 * STEPS) % len(s.train), 0, s.budget)
                )
            )
            lines.append(
                f"- {precision}: {STEPS / seconds:.1f} steps/s of 128 molecules, "
                f"{128 * STEPS / seconds:,.0f} molecules/s; masking and padding alone take "
                f"{100 * masking / seconds:.0f} % of that time"
            )
    header = ("precision", "loss", "token", "coord", "distance", "gradient", "held-out loss")
    return ["Relative differences to the CPU in fp32, no dropout.", "", *markdown(header, rows),
            "", *lines]  # fmt: skip


def _steps(state: PretrainingState, count: int) -> None:
    for _ in range(count):
        state._step()
        state.step += 1
