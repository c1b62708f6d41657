"""Features with classes to a trained generator, by Ray Train."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import ray

from pipeline.encoders.unimol.precision import default_precision
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.diffusion.loop import GeneratorJob, Rows, generator_loop
from pipeline.generation.diffusion.noise import diffusers
from pipeline.generation.diffusion.scaling import Scaling
from pipeline.generation.settings import GeneratorSettings
from pipeline.runtime.cluster import cluster_cores
from pipeline.runtime.files import absolute, remove
from pipeline.runtime.progress_curves import watched
from pipeline.runtime.ray_train import fit, read_state, run_name, threads_of, torch_trainer

log = logging.getLogger(__name__)

CURVES = "generator_curves.csv"
# Settings that say where and how fast, or how samples are drawn, not what is learned.
NOT_IDENTITY = (
    "num_workers", "checkpoint_every", "sampler", "sampling_steps", "guidance",
)  # fmt: skip


@dataclass(frozen=True)
class Classed:
    """Features (n, d), and the number of each one's class (n,) among some."""

    features: np.ndarray
    classes: np.ndarray

    def of(self, number: int) -> np.ndarray:
        """The features of one class."""
        return self.features[self.classes == number]


def fit_generator(
    train: Classed,
    holdout: Classed,
    names: Sequence[str],
    settings: GeneratorSettings,
    folder: str,
    device: str = "cpu",
    precision: str = "auto",
) -> tuple[Generator, dict[str, Any]]:
    """Train a generator; a run that was killed continues when it is started again.

    Parameters
    ----------
    train, holdout : held-out rows choose the step whose weights are kept, and are told apart from
        the best linear guess; each class has rows in both.
    names : of the classes.
    folder : the run's state lies in it while the run lasts, and its curves after.
    device : "cpu" or "cuda".

    Returns
    -------
    generator, outcome
        `outcome` is what `loop.generator_loop` returned.
    """
    diffusers()
    own = {f.name for f in fields(GeneratorSettings)}
    settings = GeneratorSettings(**{name: getattr(settings, name) for name in own})
    if precision == "auto":
        precision = default_precision(device)
    if precision == "fp16":  # its gradients would need to be scaled
        precision = "fp32"
    scaling = Scaling.fit(train.features, settings.whiten)
    rows = [Rows(scaling.inward(each.features), each.classes) for each in (train, holdout)]
    storage, curves = f"{absolute(folder)}/.ray_train", f"{absolute(folder)}/{CURVES}"
    digest = hashlib.blake2b(digest_size=16)
    for part in rows:
        digest.update(part.features.tobytes() + part.classes.tobytes())
    name = run_name(settings, NOT_IDENTITY, list(names), precision, digest.hexdigest())
    job = GeneratorJob(
        settings, ray.put(rows), len(names), precision, threads_of(settings.num_workers), curves
    )
    trainer = torch_trainer(
        generator_loop, {"job": job}, workers=settings.num_workers, use_gpu=device == "cuda",
        cores=cluster_cores(), storage=storage, name=name, light=True,
    )  # fmt: skip
    with watched(curves, _line):
        result = fit(trainer, "lower --batch_size (--gradient_accumulation_steps makes up for it)")
    outcome = result.return_value
    generator = Generator(settings, tuple(names), scaling, read_state(result.checkpoint)["best"])
    if outcome["resumed_after_step"]:
        log.info("resumed after step %s", outcome["resumed_after_step"])
    remove(f"{storage}/{name}")  # a new start shall train again
    return generator, {**outcome, "precision": precision, **_verdict(outcome)}


def _verdict(outcome: dict[str, Any]) -> dict[str, Any]:
    """Whether the generator learned more than a Gaussian of each class knows."""
    best = min(outcome["history"], key=lambda line: line["heldout_loss"])
    losses = {name: best[f"{name}_loss"] for name in ("heldout", "linear", "zero")}
    learned = losses["heldout"] < losses["linear"]
    if not learned:
        log.warning(
            "the generator learned nothing that a Gaussian of each class does not know: held-out "
            "loss %.4f, the best linear guess's %.4f; more --steps or more rows may help, else "
            "draw from the Gaussian", losses["heldout"], losses["linear"],
        )  # fmt: skip
    return {"best_losses": losses, "better_than_linear": learned}


def _line(line: dict[str, str]) -> str:
    of = {name: float(line[f"{name}_loss"]) for name in ("train", "heldout", "linear")}
    return (
        f"generator, step {line['step']}: training loss {of['train']:.4f}, held-out loss "
        f"{of['heldout']:.4f} (best linear guess {of['linear']:.4f}, zero 1)"
    )
