"""What each training worker of a peptide generator runs.

A step's peptides, their noise and their steps depend on the seed and the batch's number alone.
Workers share a batch, and the loss is a mean over all of its residues, so the sum of the workers'
gradients is the gradient of one worker with the whole batch.
"""

from __future__ import annotations

import inspect
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor, nn

from pipeline.encoders.unimol.precision import PRECISIONS, autocast
from pipeline.generation.diffusion.draws import HELD_OUT, Noising
from pipeline.generation.diffusion.state import DiffusionState
from pipeline.peptides.diffusion.batches import Batch, Batches, batch_of, made_ahead
from pipeline.peptides.diffusion.decoder import LEVELS, decoding_loss, right_count
from pipeline.peptides.diffusion.network import PeptideModel
from pipeline.peptides.diffusion.residues import Peptides, padded_length, parts_of
from pipeline.peptides.settings import PeptideGeneratorSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.telemetry import DeviceLoad
from pipeline.runtime.train.ray_train import prepare_device, rank, world
from pipeline.runtime.train.training_in_steps import over_workers

log = logging.getLogger(__name__)

HELD_OUT_PEPTIDES = 2000  # that held-out losses are means over, at most


@dataclass(frozen=True)
class PeptideJob:
    """What a worker needs.

    Attributes
    ----------
    peptides : those to train on, and held-out ones: in the cluster's memory.
    baselines : losses of held-out peptides that the model is to undercut.
    classes : their number.
    precision : decided.
    curves : path or URI of the file that shows how far the run is.
    """

    settings: PeptideGeneratorSettings
    peptides: ray.ObjectRef
    baselines: Mapping[str, float]
    classes: int
    precision: str
    threads: int
    curves: str


def peptide_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Train a generator of peptides; returns the curves and figures (the same on every worker)."""
    job: PeptideJob = config["job"]
    state = PeptideState(job, prepare_device(job.threads), slice(rank(), None, world()))
    try:
        return state.train(job.curves)
    finally:
        state.close()


class PeptideState(DiffusionState):
    """The training of a generator of peptides.

    Parameters
    ----------
    mine : which peptides of a batch are this worker's.
    """

    def __init__(self, job: PeptideJob, device: torch.device, mine: slice = slice(None)):
        train, self.held_out_peptides = _peptides(job)
        torch.manual_seed(job.settings.seed)
        columns = 0 if train.structures is None else train.structures.shape[1]
        model = PeptideModel(train.latents.shape[1], job.classes, columns, job.settings)
        super().__init__(model.to(device), job.settings, device)
        self.dtype, self.noising = PRECISIONS[job.precision], Noising(job.settings)
        self.make = Batches(train, job.settings, model.any_class)
        self.denoise = model.denoiser
        if job.settings.compile:
            check_compiler(device)
            self.denoise = compiled(model.denoiser, len(self.make.lengths))
        self.load, self.baselines = DeviceLoad(), job.baselines
        self.mine = mine
        self.seen = 0  # residues, over all workers, in this process's steps
        self._batches: Generator[Batch] | None = None

    def one_step(self) -> dict[str, Tensor]:
        """One step of the optimiser; the diffusion model's loss."""
        count, mine = self.settings.gradient_accumulation_steps, self.mine
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for _ in range(count):
            with self.load.waiting():
                batch = self._next_batch()
                residues, seed, whole = int(batch.real.sum()), batch.seed, batch.latents.shape
                batch = batch.part(mine).map(self._sent)
            self.seen += residues
            noise = self._noise(seed, whole)[mine]
            if len(noise):  # else the batch has fewer peptides than there are workers
                loss, decoding = self._losses(batch, noise)
                loss = loss / (residues * batch.latents.shape[2] * count)
                (loss + decoding / (residues * count)).backward()
                total += loss.detach()
        self.update()
        self.load.step_done()
        return {"loss": over_workers(total, self.device)}

    def held_out(self) -> dict[str, float]:
        """Losses of held-out peptides, the baselines', and how busy the device was."""
        load, model = self.load.take(), self.average.module.eval()
        found = judged(model, self.held_out_peptides, self.settings, self.device, self.dtype)
        return {**found, **self.baselines, **load}

    def close(self) -> None:
        """End the threads that make batches."""
        if self._batches is not None:
            self._batches.close()

    def _next_batch(self) -> Batch:
        if self._batches is None:
            count = self.settings.gradient_accumulation_steps
            numbers = range(self.step * count, self.settings.steps * count)
            self._batches = made_ahead(self._made, numbers, self.settings.loader_threads)
        return next(self._batches)

    def _made(self, number: int) -> Batch:
        batch = self.make(number)
        return batch.map(Tensor.pin_memory) if self.device.type == "cuda" else batch

    def _sent(self, part: Tensor) -> Tensor:
        return part.to(self.device, non_blocking=True)

    def _noise(self, seed: int, shape: Sequence[int]) -> Tensor:
        """Noise (B, 2, N, C) of a whole batch: for the diffusion model, and for the decoder."""
        seeded = torch.Generator(self.device).manual_seed(seed)
        return torch.randn((shape[0], 2, *shape[1:]), generator=seeded, device=self.device)

    def _losses(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over real residues: of the squared errors, and of the cross-entropies."""
        settings = self.settings
        level = settings.decoder_noise * (batch.steps + 1) / settings.diffusion_steps
        with autocast(self.device, self.dtype):
            errors = squared_errors(
                self.denoise, self.noising, batch, noise[:, 0], batch.guess_first
            )
            entropies = decoding_loss(
                self.model.decoder, batch.latents.float(), batch.tokens.long(), batch.real,
                level[:, None, None] * noise[:, 1],
            )  # fmt: skip
        return errors, entropies


def _peptides(job: PeptideJob) -> tuple[Peptides, Peptides]:
    return ray.get(job.peptides)


def squared_errors(
    denoise: nn.Module, noising: Noising, batch: Batch, noise: Tensor, guess_first: bool
) -> Tensor:
    """The sum over the real residues' latents."""
    noisy, target = noising.mixed(batch.latents.float(), noise, batch.steps)
    structures = None if batch.structures is None else batch.structures.float()
    given = (batch.real, batch.steps, batch.classes, structures, batch.has_structure)
    guess = torch.zeros_like(noisy)
    if guess_first:
        with torch.no_grad():
            guess = noising.clean(noisy, denoise(noisy, guess, *given).float(), batch.steps)
    told = denoise(noisy, guess, *given).float()
    return ((told - target).square() * batch.real[..., None]).sum()


@torch.no_grad()
def judged(
    model: PeptideModel, peptides: Peptides, settings: PeptideGeneratorSettings,
    device: torch.device, dtype: torch.dtype,
) -> dict[str, float]:  # fmt: skip
    """Mean losses of held-out peptides, and the share of residues that the decoder tells right.

    Where the model knows structures, its loss without any is `heldout_loss`, as samples are drawn
    without. Of those that have one, of which `heldout_structures` says how many they are, the loss
    with them stands beside that without: `…_with_structures` and `…_structures_hidden`.
    """
    sums, residues, known = Counter(), Counter(), 0
    noising, guesses = Noising(settings), settings.self_conditioning > 0
    for batch, noise in held_out_batches(peptides, settings):
        batch, noise = batch.map(lambda part: part.to(device)), noise.to(device)
        with autocast(device, dtype):
            for name, (seen, own) in _kinds(batch, noise).items():
                errors = squared_errors(model.denoiser, noising, seen, own, guesses)
                sums[name] += float(errors) / batch.latents.shape[2]
                residues[name] += int(seen.real.sum())
            for level in LEVELS:
                name, latents = f"decoder_right_{level:g}", batch.latents.float() + level * noise
                sums[name] += right_count(model.decoder, latents, batch.tokens, batch.real)
                residues[name] += int(batch.real.sum())
        known += 0 if batch.structures is None else int(batch.has_structure.sum())
    means = {name: total / residues[name] for name, total in sums.items()}
    return {**means, "heldout_structures": known} if known else means


def held_out_batches(
    peptides: Peptides, settings: PeptideGeneratorSettings
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches of held-out peptides and their noise (B, N, C), which never change."""
    rng = np.random.default_rng([settings.seed, HELD_OUT])
    rows = rng.permutation(len(peptides.classes))[:HELD_OUT_PEPTIDES]
    rows = rows[np.argsort(peptides.lengths[rows], kind="stable")]
    for part in parts_of(peptides.lengths[rows], settings.batch_residues):
        chosen = rows[part]
        steps = rng.integers(settings.diffusion_steps, size=len(chosen))
        seeded = torch.Generator().manual_seed(int(rng.integers(2**63)))
        length = padded_length(int(peptides.lengths[chosen].max()))
        batch = batch_of(peptides, chosen, length, peptides.classes[chosen], steps)
        yield batch, torch.randn(batch.latents.shape, generator=seeded)


def _kinds(batch: Batch, noise: Tensor) -> dict[str, tuple[Batch, Tensor]]:
    """A batch as samples are drawn, and of it what has structures, with them and without."""
    if batch.structures is None:
        return {"heldout_loss": (batch, noise)}
    known = batch.has_structure
    hidden = batch._replace(has_structure=torch.zeros_like(known))
    kinds = {"heldout_loss": (hidden, noise)}
    if known.any():
        for name, seen in (("with_structures", batch), ("structures_hidden", hidden)):
            kinds[f"heldout_loss_{name}"] = seen.part(known), noise[known]
    return kinds


def compiled(denoise: nn.Module, lengths: int, backend: str | Callable = "inductor") -> Callable:
    """A model that is compiled once for each shape of batches, with gradients and without.

    Parameters
    ----------
    lengths : to which batches are padded. By default torch compiles 8 shapes and no more.
    backend : of torch.compile.
    """
    most = {"recompile_limit": 2 * lengths + 1}
    if "recompile_limit" not in inspect.signature(torch.compile).parameters:
        most = {}
        log.warning("--compile: this torch compiles few lengths, and leaves others")
    return torch.compile(denoise, dynamic=False, backend=backend, **most)


def check_compiler(device: torch.device) -> None:
    """InputError if there is no compiler of what torch writes for a device."""
    variable, usual = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++",))
    names = (os.environ[variable],) if os.environ.get(variable) else usual
    if not any(map(shutil.which, names)):
        raise InputError(
            f"--compile: no compiler {' or '.join(names)} is there; install it, name another by "
            f"the environment's {variable}, or leave --compile out"
        )
