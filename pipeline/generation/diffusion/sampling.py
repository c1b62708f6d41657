"""Samples of a generator: shards of rows with noise of their own, on all devices of the cluster.

They begin as noise (`draw`), or as given features that are noised up to some step (`redraw`).

A shard's noise depends on the seed and its number alone, so the same settings give the same
samples on any number of actors and threads, on devices of one kind. On a CPU each core takes a
shard through all steps: its rows stay in the core's cache, and fresh noise is made on all cores. A
GPU takes large shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from ray.util import ActorPool
from torch import Tensor

from pipeline.encoders.unimol.precision import PRECISIONS, default_precision
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.diffusion.noise import levels, scheduler_of
from pipeline.runtime.nodes.cluster import is_one_node, resources
from pipeline.runtime.nodes.machine import usable_cores

SHARD_ROWS = {"cpu": 512, "cuda": 16384}


class Begin(NamedTuple):
    """Features that samples begin as.

    Attributes
    ----------
    features : (n, width) float32, scaled.
    steps : (n,) int64, falling: the step of diffusion up to which each is noised.
    temperatures : (n,) float32, what the deviation of that noise is multiplied by.
    """

    features: np.ndarray
    steps: np.ndarray
    temperatures: np.ndarray


class Shard(NamedTuple):
    """Rows that share their noise.

    Attributes
    ----------
    seed : of the noise: the seeds given, and the shard's number.
    classes : (n,) int64.
    begin : of n rows; None to begin as noise.
    """

    seed: tuple[int, ...]
    classes: np.ndarray
    begin: Begin | None = None


class ShardSampler:
    """A generator on one device, which draws shards; who inherits says how one is drawn.

    Parameters
    ----------
    generator : whose `settings` say how samples are drawn.
    threads : shards that are drawn at a time, on a CPU.
    """

    def __init__(self, generator: Generator, device: str, precision: str, threads: int = 1):
        self.generator, self.device, self.threads = generator, torch.device(device), threads
        self.dtype = PRECISIONS[precision]
        self.network = generator.network().to(self.device)

    def _drawn(self, shard: Any, noise: torch.Generator) -> Any:
        """The samples of a shard, by a source of noise of its own."""
        raise NotImplementedError

    def sample_all(self, shards: Iterable[Any]) -> list[Any]:
        """The samples of each shard, one a thread at a time."""
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self.threads) as pool:
                return list(pool.map(self.sample, shards))
        finally:  # threads to come take what was set last
            torch.set_num_threads(before)

    def sample(self, shard: Any) -> Any:
        """The samples of a shard; its `seed` is all that they depend on, beside what it asks."""
        if self.device.type == "cpu":
            torch.set_num_threads(1)  # other threads take other shards
        seed = int(np.random.default_rng(shard.seed).integers(2**63))
        with torch.inference_mode():
            return self._drawn(shard, torch.Generator(self.device).manual_seed(seed))

    @property
    def branches(self) -> int:
        """How often a network is asked of each row: of its class, and if guided of any class."""
        return 1 if self.generator.settings.guidance == 1 else 2

    def _branches(self, of: Callable[[Tensor], Tensor], classes: Tensor) -> Tensor:
        """What a network tells of rows (branches, n, …) float32.

        Parameters
        ----------
        of : from classes, of all rows once or twice, to what is told of them.
        classes : (n,) the numbers of theirs.
        """
        hidden = torch.full_like(classes, self.network.any_class)
        asked = torch.cat([classes, hidden][: self.branches])
        return of(asked).float().unflatten(0, (self.branches, -1))

    def _guided(self, told: Tensor) -> Tensor:
        """What `_branches` gave, as one (n, …)."""
        if len(told) == 1:
            return told[0]
        of_class, of_any = told
        return of_any + self.generator.settings.guidance * (of_class - of_any)


class Sampler(ShardSampler):
    """A generator's network on one device, with what it knows of each step made once."""

    def __init__(self, generator: Generator, device: str, precision: str, threads: int = 1):
        super().__init__(generator, device, precision, threads)
        with torch.inference_mode():
            steps = torch.arange(generator.settings.diffusion_steps, device=self.device)
            times, classes = self.network.times(steps), self.network.classes.weight
            self.times, self.classes = times.to(self.dtype), classes.to(self.dtype)
        self.network.to(self.dtype)

    def _drawn(self, shard: Shard, noise: torch.Generator) -> np.ndarray:
        """Scaled features (n, width) float32."""
        classes = torch.from_numpy(shard.classes).to(self.device)
        width = self.generator.scaling.width
        x = torch.randn((len(classes), width), generator=noise, device=self.device)
        scheduler = scheduler_of(self.generator.settings)
        if shard.begin is not None:
            x = self._noised(shard.begin, x)
        for step in scheduler.timesteps:
            n = len(x) if shard.begin is None else int((shard.begin.steps >= int(step)).sum())
            if n:
                told = self._told(x[:n], int(step), classes[:n])
                made = scheduler.step(told, step, x[:n], generator=noise, return_dict=False)
                x[:n] = made[0]
        return x.cpu().numpy()

    def _noised(self, begin: Begin, noise: Tensor) -> Tensor:
        """Features with noise (n, width) of unit variance, each up to its step and temperature."""
        signal, level = (share[begin.steps] for share in levels(self.generator.settings))
        shares = np.stack([signal, level * begin.temperatures]).astype(np.float32)[..., None]
        alpha, sigma = torch.from_numpy(shares).to(self.device)
        return alpha * torch.from_numpy(begin.features).to(self.device) + sigma * noise

    def _told(self, x: Tensor, step: int, classes: Tensor) -> Tensor:
        """What the network tells of rows, guided: (n, width) float32."""
        x, time = x.to(self.dtype), self.times[step]

        def of(asked: Tensor) -> Tensor:
            rows = x if len(asked) == len(x) else torch.cat([x, x])
            return self.network.denoise(rows, time + self.classes[asked])

        return self._guided(self._branches(of, classes))


def draw(
    generator: Generator,
    classes: np.ndarray,
    seed: Sequence[int],
    device: str = "cpu",
    precision: str = "auto",
) -> np.ndarray:
    """Features of some classes, drawn on all devices that the cluster has.

    Parameters
    ----------
    classes : (n,) the number of each one's class.
    seed : what the noise depends on, beside a shard's number.
    device : "cpu" or "cuda".

    Returns
    -------
    numpy.ndarray
        (n, d) float32, in units of the features that the generator was trained on.
    """
    shards = [
        Shard((*seed, number), np.ascontiguousarray(classes[part], np.int64))
        for number, part in enumerate(_parts(len(classes), device))
    ]
    return generator.scaling.outward(_sampled(generator, shards, device, precision))


def redraw(
    generator: Generator,
    features: np.ndarray,
    classes: np.ndarray,
    steps: np.ndarray,
    temperatures: np.ndarray,
    seed: Sequence[int],
    device: str = "cpu",
    precision: str = "auto",
) -> np.ndarray:
    """Features that are noised up to some step of diffusion and denoised again.

    Meng et al., SDEdit, 2022: the later the step, the less is left of a feature.

    Parameters
    ----------
    features, classes : (n, d) in units of the training features, and the number of each's class.
    steps : (n,) int, each among those that the sampler takes.
    temperatures : (n,), what the deviation of the noise is multiplied by: the model takes noise
        beyond 1 for signal, so that features end farther out.
    seed, device, precision : as in `draw`.

    Returns
    -------
    numpy.ndarray
        (n, d) float32, row i of feature i.
    """
    if generator.settings.sampler == "dpm++":
        raise ValueError("dpm++ remembers earlier steps, and rows here begin at different ones")
    order = np.argsort(-steps, kind="stable")
    begin = Begin(generator.scaling.inward(features), steps, temperatures.astype(np.float32))
    shards = [
        Shard(
            (*seed, number),
            np.ascontiguousarray(classes[order[part]], np.int64),
            Begin(*(np.ascontiguousarray(each[order[part]]) for each in begin)),
        )
        for number, part in enumerate(_parts(len(order), device))
    ]
    scaled = np.empty((len(order), generator.scaling.width), np.float32)
    scaled[order] = _sampled(generator, shards, device, precision)
    return generator.scaling.outward(scaled)


def _parts(rows: int, device: str) -> list[slice]:
    """The rows of each shard."""
    size = SHARD_ROWS[device]
    return [slice(start, start + size) for start in range(0, rows, size)]


def _sampled(generator: Generator, shards: list[Shard], device: str, precision: str) -> np.ndarray:
    """The samples of all shards: (n, width) float32."""
    made = on_all_devices(Sampler, generator, shards, device, precision)
    return np.concatenate([np.empty((0, generator.scaling.width), np.float32), *made])


def on_all_devices(
    kind: type[ShardSampler], generator: Generator, shards: Sequence[Any], device: str,
    precision: str = "auto",
) -> list[Any]:  # fmt: skip
    """What samplers of a kind draw of each shard, in the shards' order."""
    if precision == "auto":
        precision = default_precision(device)
    if device == "cpu" and (not ray.is_initialized() or is_one_node()):
        threads = min(usable_cores(), max(1, len(shards)))
        return kind(generator, device, precision, threads).sample_all(shards)
    on_gpu = device == "cuda"
    actors = max(1, min(len(shards), int(resources()["GPU" if on_gpu else "CPU"])))
    made = ray.remote(kind).options(num_gpus=int(on_gpu), num_cpus=int(not on_gpu))
    kept = ray.put(generator)
    pool = ActorPool([made.remote(kept, device, precision) for _ in range(actors)])
    return list(pool.map(lambda actor, shard: actor.sample.remote(shard), shards))
