"""Finetuning and pretraining on a GPU: steps against the CPU in float32, and steps a second.

As in the jobs, torch's deterministic algorithms are on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from bench.cuda.molecules import Conformer
from bench.cuda.right import told
from bench.report import markdown, seconds_of
from pipeline.detectors.heads.losses import training_loss
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.finetuning.trunk import ComputedRows, Rows, StoredRows, TokenRows
from pipeline.pretraining.molecules.loop import PretrainingState, PretrainJob
from pipeline.pretraining.settings import PretrainSettings
from pipeline.training.finetuning.plan import plan_finetuning
from pipeline.training.settings import TrainSettings
from pipeline.training.worker.batches import ResidentBatches
from pipeline.training.worker.worker_setup import build_energy_model

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CPU = torch.device("cpu")
LIMIT = 1e-3  # of the loss and the gradient, relative
FEW, STEPS, MOST_ATOMS = 32, 40, 40
COMPARED = 5  # steps of the optimiser on both devices
TRAINED = 1024  # molecules that finetuning's speed is measured on
PLANS = {
    "last two layers": {"freeze_layers": "0-12"},
    "LoRA in the last two": {"freeze_layers": "0-12", "adapter": "lora"},
    "all layers": {"freeze_layers": "none"},
}


@contextmanager
def deterministic() -> Iterator[None]:
    """As `pipeline.runtime.train.ray_train.prepare_device` has it."""
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


def first_steps(
    settings: TrainSettings, molecules: list[Conformer], device: torch.device
) -> tuple[np.ndarray, Tensor]:
    """Losses of `COMPARED` steps of the optimiser on the same molecules, half of them as ID and
    half as OOD, and the first gradient as one vector."""
    settings = replace(settings, dropout=0.0, encoder_dropout=0.0)
    plan, rows = rows_of(settings, molecules, device, stored=False)
    torch.manual_seed(settings.seed)
    model, groups = build_energy_model(settings, plan, device)
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    model.train()
    half, losses, gradient = len(molecules) // 2, [], None
    for _ in range(COMPARED):
        optimizer.zero_grad(set_to_none=True)
        loss = training_loss(model(rows[:half]), model(rows[half:]), settings)
        loss.backward()
        gradient = flat_gradient(model) if gradient is None else gradient
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), gradient


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


def settings_of(weights: str, name: str) -> TrainSettings:
    """Of jobs.train, by what is trained; rates at which a few steps change something."""
    return TrainSettings(
        data_file="-", weights=weights, finetune_encoder=True, precision="fp32", lr=1e-3,
        encoder_lr=1e-4, **PLANS[name],
    ).sized()  # fmt: skip


def gradients(molecules: list[Conformer], weights: str) -> list[str]:
    """Losses of some steps and the first gradient against the CPU, by what is trained."""
    rows, wrong = [], []
    few = [m for m in molecules if len(m[0]) <= MOST_ATOMS][-FEW:]
    with deterministic():
        for name in PLANS:
            settings = settings_of(weights, name)
            losses, gradient = first_steps(settings, few, CPU)
            for precision in ("fp32", "bf16"):
                there, gradient_there = first_steps(
                    replace(settings, precision=precision), few, DEVICE
                )
                off = np.abs(there / losses - 1), difference(gradient_there, gradient)
                rows.append((name, precision, f"{off[0][0]:.1e}", f"{off[1]:.1e}",
                             f"{off[0].max():.1e}", f"{losses[0]:.4f} → {losses[-1]:.4f}",
                             f"{there[0]:.4f} → {there[-1]:.4f}"))  # fmt: skip
                print(*rows[-1], flush=True)
                if precision == "fp32" and not max(off[0].max(), off[1]) < LIMIT:
                    wrong.append(f"{name}: {off}")
    header = ("trained", "precision", "first loss", "first gradient", f"{COMPARED} losses",
              "on the CPU", "on the GPU")  # fmt: skip
    lines = [
        f"Relative differences to the CPU in fp32, {len(few)} molecules, no dropout; at most "
        f"{LIMIT:.0e} in fp32 is allowed.",
        "",
        *markdown(header, rows),
    ]
    return told(lines, wrong)


def finetuning(molecules: list[Conformer], weights: str) -> list[str]:
    """Steps a second, by what is trained."""
    rows = []
    molecules = [m for m in molecules if len(m[0]) <= MOST_ATOMS][-TRAINED:]
    with deterministic():
        for name, given in PLANS.items():
            settings = settings_of(weights, name)
            for stored in (True, False) if given["freeze_layers"] != "none" else (False,):
                rates = (
                    steps_a_second(replace(settings, precision=p), molecules, stored)
                    for p in ("bf16", "fp32")
                )
                source = "stored" if stored else "computed"
                rows.append((name, source, *(f"{rate:.1f}" for rate in rates)))
                print(*rows[-1], flush=True)  # a slow one shall not hide the others
    return [
        "Steps of 256 ID and 256 OOD molecules, with dropout.",
        "",
        *markdown(("trained", "trunk", "steps/s, bf16", "steps/s, fp32"), rows),
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
    job = PretrainJob(settings, Table(molecules), list(range(held, count)), list(range(held)))
    return PretrainingState(job, device)


def pretraining_steps(molecules: list[Conformer], weights: str) -> list[str]:
    """Losses of some steps and the first gradient against the CPU."""
    few = [m for m in molecules if len(m[0]) <= MOST_ATOMS][: FEW + 4]
    rows, wrong, made = [], [], {}
    with deterministic(), one_worker():
        for device, precision in ((CPU, "fp32"), (DEVICE, "fp32"), (DEVICE, "bf16")):
            state = pretraining_state(
                few, device, 4, precision=precision, dropout=0.0, batch_size=FEW
            )
            state.model.train()
            first = state.one_step()
            gradient = flat_gradient(state.model)
            state.step += 1
            later = steps_taken(state, COMPARED - 1)
            made[str(device), precision] = first, gradient, later, state.held_out()
    losses, gradient, later, held_out = made["cpu", "fp32"]
    for precision in ("fp32", "bf16"):
        theirs, their_gradient, their_later, their_held_out = made[str(DEVICE), precision]
        off = [abs(theirs[k] / losses[k] - 1) for k in ("loss", "token", "coord", "distance")]
        off.append(difference(their_gradient, gradient))
        off.append(np.abs(their_later / later - 1).max())
        off.append(abs(their_held_out["heldout_loss"] / held_out["heldout_loss"] - 1))
        rows.append((precision, *(f"{error:.1e}" for error in off)))
        if precision == "fp32" and not max(off) < LIMIT:
            wrong.append(f"fp32 differs from the CPU: {off}")
    header = ("precision", "loss", "token", "coord", "distance", "gradient",
              f"losses of {COMPARED - 1} more steps", "held-out loss after them")  # fmt: skip
    lines = [f"Relative differences to the CPU in fp32, {len(few) - 4} molecules, no dropout; "
             f"the loss there went from {losses['loss']:.3f} to {later[-1]:.3f}.", "",
             *markdown(header, rows)]  # fmt: skip
    return told(lines, wrong)


def pretraining(molecules: list[Conformer], weights: str) -> list[str]:
    """How the loss falls, and the speed, of steps of 128 molecules."""
    lines = []
    with deterministic(), one_worker():
        for precision in ("bf16", "fp32"):
            state = pretraining_state(molecules, DEVICE, 100, precision=precision, epochs=100)
            before = state.held_out()["heldout_loss"]
            state.model.train()
            steps_taken(state, 5)
            seconds = seconds_of(lambda s=state: steps_taken(s, STEPS))
            after = state.held_out()["heldout_loss"]
            masking = seconds_of(
                lambda s=state: list(
                    s.train_set.masked(np.arange(128 * STEPS) % len(s.train_set), 0, s.budget)
                )
            )
            lines.append(
                f"- {precision}: {STEPS / seconds:.1f} steps/s of 128 molecules, "
                f"{128 * STEPS / seconds:,.0f} molecules/s; masking and padding alone take "
                f"{100 * masking / seconds:.0f} % of that time; the loss of 100 molecules held "
                f"out fell from {before:.2f} to {after:.2f} in {5 + STEPS} steps"
            )
            print(lines[-1], flush=True)
            if not after < before:
                raise AssertionError("\n".join(lines))
    return lines


def one_worker() -> AbstractContextManager:
    """Stands for Ray Train, which tells a worker its number."""
    context = SimpleNamespace(get_world_rank=lambda: 0)
    return mock.patch("ray.train.get_context", lambda: context)


def steps_taken(state: PretrainingState, count: int) -> np.ndarray:
    """Losses of so many steps."""
    losses = []
    for _ in range(count):
        losses.append(state.one_step()["loss"])
        state.step += 1
    return np.array(losses)
