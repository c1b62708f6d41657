"""Peptides with classes to a trained generator, by Ray Train."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import ray

from pipeline.generation.diffusion.baselines import Gaussian
from pipeline.generation.diffusion.draws import Noising
from pipeline.generation.diffusion.scaling import Scaling
from pipeline.generation.diffusion.state import precision_for_training
from pipeline.peptides.diffusion.generator import PeptideGenerator, length_counts
from pipeline.peptides.diffusion.half_told import shift_of
from pipeline.peptides.diffusion.loop import PeptideJob, held_out_batches, peptide_loop
from pipeline.peptides.diffusion.residues import Peptides, padded_length
from pipeline.peptides.settings import PeptideGeneratorSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute, remove, write_atomically
from pipeline.runtime.nodes.cluster import cluster_cores
from pipeline.runtime.progress_curves import watched
from pipeline.runtime.text import records_csv
from pipeline.runtime.train.ray_train import fit, read_state, run_name, threads_of, torch_trainer

log = logging.getLogger(__name__)

CURVES = "peptide_curves.csv"
# Settings that say where and how fast, or how samples are drawn, not what is learned.
NOT_IDENTITY = (
    "num_workers", "loader_threads", "compile", "sampler", "sampling_steps", "guidance",
)  # fmt: skip
FEW_SHAPES = 8  # of batches, with which memory of a process on a CPU is reused
GAUSSIAN_RESIDUES = 20_000  # of a class, whose covariance is taken


@dataclass(frozen=True)
class FittedPeptides:
    """A trained generator, and how its training went.

    Attributes
    ----------
    outcome : what `DiffusionState.train` returned.
    waiting_share : of the time of all steps, that the device waited for data.
    precision : of the matrix products.
    state : the run's state, from which the same call gives this again; `forget` removes it.
    """

    generator: PeptideGenerator
    outcome: dict[str, Any]
    waiting_share: float
    precision: str
    state: str

    @property
    def at_best(self) -> dict[str, float]:
        """The curves' line of the step whose weights are kept."""
        step = self.outcome["best_step"]
        return next(line for line in self.outcome["history"] if line["step"] == step)

    @property
    def better_than_linear(self) -> bool:
        """Whether it learned more than a Gaussian of each class's residues knows, and nothing."""
        line = self.at_best
        return line["heldout_loss"] < min(line["linear_loss"], line["zero_loss"])

    def forget(self) -> None:
        """Remove the run's state, once all that was asked for is written."""
        remove(self.state)


def fit_peptides(
    train: Peptides,
    held_out: Peptides,
    names: Sequence[str],
    scaling: Scaling,
    settings: PeptideGeneratorSettings,
    folder: str,
    device: str = "cpu",
    precision: str = "auto",
    latents: str = "",
) -> FittedPeptides:
    """Train a generator of peptides; a run that was killed continues when it is started again.

    Parameters
    ----------
    train, held_out : scaled; held-out peptides choose the step whose weights are kept. Each class
        has some in both.
    names : of the classes.
    scaling : of the latents.
    folder : the run's state lies in it until it is forgotten, and its curves.
    device : "cpu" or "cuda".
    latents : what made them.

    Raises
    ------
    InputError
        If a batch does not hold the longest peptide.
    """
    lengths_there = {padded_length(int(n)) for n in (*train.lengths, *held_out.lengths)}
    if max(lengths_there) > settings.batch_residues:
        raise InputError(
            f"--batch_residues {settings.batch_residues}: the longest peptide is padded to "
            f"{max(lengths_there)} residues; give at least that, or a lower --max_length"
        )
    own = {f.name for f in fields(PeptideGeneratorSettings)}
    settings = PeptideGeneratorSettings(**{name: getattr(settings, name) for name in own})
    if settings.noise_shift is None:
        settings = replace(settings, noise_shift=shift_of(train, settings))
        log.info("--noise_shift %g: half of what latents tell of single residues is told at half "
                 "of the steps", settings.noise_shift)  # fmt: skip
    precision = precision_for_training(precision, device)
    name = run_name(settings, NOT_IDENTITY, list(names), precision, _digest(train, held_out))
    storage, curves = f"{absolute(folder)}/.ray_train", f"{absolute(folder)}/{CURVES}"
    job = PeptideJob(
        settings, ray.put((train, held_out)), baselines(train, held_out, settings), len(names),
        precision, threads_of(settings.num_workers), curves,
    )  # fmt: skip
    trainer = torch_trainer(
        peptide_loop, {"job": job}, workers=settings.num_workers, use_gpu=device == "cuda",
        cores=cluster_cores(), storage=storage, name=name,
        light=len(lengths_there) <= FEW_SHAPES,
    )  # fmt: skip
    with watched(curves, _line):
        mend = "lower --batch_residues (--gradient_accumulation_steps makes up for it)"
        result = fit(trainer, mend)
    outcome = result.return_value
    write_atomically(curves, records_csv(outcome["history"]))
    if outcome["resumed_after_step"]:
        log.info("resumed after step %s", outcome["resumed_after_step"])
    columns = 0 if train.structures is None else train.structures.shape[1]
    lengths = {
        name: length_counts(train.lengths[train.classes == number])
        for number, name in enumerate(names)
    }
    generator = PeptideGenerator(
        settings, tuple(names), scaling, read_state(result.checkpoint)["best"], lengths, columns,
        latents,
    )  # fmt: skip
    fitted = FittedPeptides(
        generator, outcome, _waiting(outcome["history"]), precision, f"{storage}/{name}"
    )
    if not fitted.better_than_linear:
        log.warning(
            "the generator learned nothing that a Gaussian of each class's residues does not know: "
            "its loss on held-out peptides is %.4f, the best linear guess's %.4f; more --steps or "
            "more peptides may help",
            fitted.at_best["heldout_loss"], fitted.at_best["linear_loss"],
        )  # fmt: skip
    return fitted


def baselines(
    train: Peptides, held_out: Peptides, settings: PeptideGeneratorSettings
) -> dict[str, float]:
    """Losses of held-out peptides: of 0, and of the best linear guess of each residue alone.

    The guess is that of a Gaussian of its class's residues; see `generation.diffusion.baselines`.
    """
    rng = np.random.default_rng([settings.seed, GAUSSIAN_RESIDUES])
    of_residue = np.repeat(train.classes, train.lengths)
    gaussians = []
    for number in range(int(train.classes.max()) + 1):
        mine = rng.permutation(np.flatnonzero(of_residue == number))[:GAUSSIAN_RESIDUES]
        gaussians.append(Gaussian.fit(train.latents[mine].astype(np.float64)))
    noising, sums, count = Noising(settings), Counter(), 0
    for batch, noise in held_out_batches(held_out, settings):
        tensors = noising.mixed(batch.latents.float(), noise, batch.steps)
        noisy, target = (tensor[batch.real].double().numpy() for tensor in tensors)
        row = np.nonzero(batch.real.numpy())[0]
        classes, steps = (part.numpy()[row] for part in (batch.classes, batch.steps))
        sums["zero_loss"] += np.square(target).sum()
        for number, gaussian in enumerate(gaussians):
            here = classes == number
            signal, level, *shares = noising.shares(steps[here])
            told = gaussian.denoised(noisy[here], signal, level, tuple(shares))
            sums["linear_loss"] += np.square(told - target[here]).sum()
        count += target.size
    return {name: float(total / count) for name, total in sums.items()}


def _digest(*parts: Peptides) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in (array for part in parts for array in part if array is not None):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _waiting(history: Sequence[dict[str, float]]) -> float:
    """The mean of `waiting_share`, weighted by the seconds of each line."""
    seconds = np.diff([0.0, *(line["seconds"] for line in history)])
    return float(np.average([line["waiting_share"] for line in history], weights=seconds))


def _line(line: dict[str, str]) -> str:
    text = (
        f"peptides, step {line['step']}: training loss {float(line['train_loss']):.4f}, held-out "
        f"loss {float(line['heldout_loss']):.4f} (best linear guess "
        f"{float(line['linear_loss']):.4f}), decoder right {float(line['decoder_right_0']):.1%}, "
        f"waited for data {float(line['waiting_share']):.1%}"
    )
    if line.get("gpu_utilisation"):
        text += (
            f", GPU {float(line['gpu_utilisation']):.0f} % busy, "
            f"{float(line['gpu_power_watts']):.0f} W"
        )
    return text
