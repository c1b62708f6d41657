"""Features with classes to a trained generator, by Ray Train."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import ray
import torch

from pipeline.generation.diffusion.baselines import Gaussian
from pipeline.generation.diffusion.draws import HeldOut, Rows
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.diffusion.loop import GeneratorJob, generator_loop, losses_of
from pipeline.generation.diffusion.scaling import Scaling
from pipeline.generation.diffusion.state import precision_for_training
from pipeline.generation.packages import package
from pipeline.generation.settings import GeneratorSettings
from pipeline.runtime.files import absolute, remove, write_atomically
from pipeline.runtime.nodes.cluster import cluster_cores
from pipeline.runtime.progress_curves import watched
from pipeline.runtime.text import records_csv
from pipeline.runtime.train.ray_train import fit, read_state, run_name, threads_of, torch_trainer

log = logging.getLogger(__name__)

CURVES = "generator_curves.csv"
# Settings that say where and how fast, or how samples are drawn, not what is learned.
NOT_IDENTITY = ("num_workers", "sampler", "sampling_steps", "guidance")


@dataclass(frozen=True)
class Classed:
    """Features (n, d), and the number of each one's class (n,) among some."""

    features: np.ndarray
    classes: np.ndarray

    def of(self, number: int) -> np.ndarray:
        """The features of one class."""
        return self.features[self.classes == number]


@dataclass(frozen=True)
class Fitted:
    """A trained generator, and how its training went.

    Attributes
    ----------
    outcome : what `loop.generator_loop` returned.
    losses : of rows that training did not choose by: `model`, `linear`, `zero`.
    loss_by_time : the same by diffusion step.
    precision : of the matrix products.
    state : the run's state, from which the same call gives this again; `forget` removes it.
    """

    generator: Generator
    outcome: dict[str, Any]
    losses: dict[str, float]
    loss_by_time: list[dict[str, float]]
    precision: str
    state: str

    @property
    def better_than_linear(self) -> bool:
        """Whether it learned more than a Gaussian of each class knows, and than nothing."""
        return self.losses["model"] < min(self.losses["linear"], self.losses["zero"])

    def forget(self) -> None:
        """Remove the run's state, once all that was asked for is written."""
        remove(self.state)


def fit_generator(
    train: Classed,
    holdout: Classed,
    names: Sequence[str],
    settings: GeneratorSettings,
    folder: str,
    device: str = "cpu",
    precision: str = "auto",
    fresh: Classed | None = None,
) -> Fitted:
    """Train a generator; a run that was killed continues when it is started again.

    Parameters
    ----------
    train, holdout : held-out rows choose the step whose weights are kept; each class has rows in
        both.
    names : of the classes.
    folder : the run's state lies in it until it is forgotten, and its curves.
    device : "cpu" or "cuda".
    fresh : rows that the verdict is by; default: the held-out ones, on which it is a little kind.
    """
    package("diffusers")
    own = {f.name for f in fields(GeneratorSettings)}
    settings = GeneratorSettings(**{name: getattr(settings, name) for name in own})
    precision = precision_for_training(precision, device)
    scaling = Scaling.fit(train.features, settings.whiten)
    rows, held_out = (
        Rows(scaling.inward(each.features), each.classes) for each in (train, holdout)
    )
    digest = hashlib.blake2b(digest_size=16)
    for part in (*rows, *held_out):
        digest.update(np.ascontiguousarray(part).data)
    name = run_name(settings, NOT_IDENTITY, list(names), precision, digest.hexdigest())
    storage, curves = f"{absolute(folder)}/.ray_train", f"{absolute(folder)}/{CURVES}"
    gaussians = [Gaussian.fit(rows.features[rows.classes == n]) for n in range(len(names))]
    held = HeldOut.of(held_out, gaussians, settings)
    job = GeneratorJob(
        settings, ray.put((rows, held)), len(names), precision, threads_of(settings.num_workers),
        curves,
    )  # fmt: skip
    trainer = torch_trainer(
        generator_loop, {"job": job}, workers=settings.num_workers, use_gpu=device == "cuda",
        cores=cluster_cores(), storage=storage, name=name, light=True,
    )  # fmt: skip
    with watched(curves, _line):
        result = fit(trainer, "lower --batch_size (--gradient_accumulation_steps makes up for it)")
    outcome = result.return_value
    write_atomically(curves, records_csv(outcome["history"]))
    if outcome["resumed_after_step"]:
        log.info("resumed after step %s", outcome["resumed_after_step"])
    generator = Generator(settings, tuple(names), scaling, read_state(result.checkpoint)["best"])
    if fresh is not None:
        judged = Rows(scaling.inward(fresh.features), fresh.classes)
        held = HeldOut.of(judged, gaussians, settings)
    told = losses_of(generator.network(), held.draws, torch.device("cpu"), torch.float32)
    of = {"model": told, "linear": held.linear, "zero": held.zero}
    fitted = Fitted(
        generator, outcome, {name: float(each.mean()) for name, each in of.items()},
        held.by_time(told, settings.diffusion_steps), precision, f"{storage}/{name}",
    )  # fmt: skip
    if not fitted.better_than_linear:
        log.warning(
            "the generator learned nothing that a Gaussian of each class does not know: loss on "
            "rows it has not seen %.4f, the best linear guess's %.4f, zero's %.4f; more --steps or "
            "more rows may help, else draw from the Gaussian",
            *(fitted.losses[name] for name in ("model", "linear", "zero")),
        )  # fmt: skip
    return fitted


def _line(line: dict[str, str]) -> str:
    of = {name: float(line[f"{name}_loss"]) for name in ("train", "heldout", "linear", "zero")}
    return (
        f"generator, step {line['step']}: training loss {of['train']:.4f}, held-out loss "
        f"{of['heldout']:.4f} (best linear guess {of['linear']:.4f}, zero {of['zero']:.4f})"
    )
