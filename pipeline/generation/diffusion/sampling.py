"""Samples of a generator: shards of rows with noise of their own, on all devices of the cluster.

A shard's noise depends on the seed and its number alone, so the same settings give the same
samples on any number of actors and threads, on devices of one kind. On a CPU each core takes a
shard through all steps: its rows stay in the core's cache, and fresh noise is made on all cores. A
GPU takes large shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import ray
import torch
from ray.util import ActorPool
from torch import Tensor

from pipeline.encoders.unimol.precision import PRECISIONS, default_precision
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.diffusion.noise import scheduler_of
from pipeline.runtime.cluster import is_one_node, resources
from pipeline.runtime.machine import usable_cores

SHARD_ROWS = {"cpu": 512, "cuda": 16384}


class Shard(NamedTuple):
    """Rows that share their noise.

    Attributes
    ----------
    seed : of the noise: the seeds given, and the shard's number.
    classes : (n,) int64.
    """

    seed: tuple[int, ...]
    classes: np.ndarray


class Sampler:
    """A generator's network on one device, with what it knows of each step made once."""

    def __init__(self, generator: Generator, device: str, precision: str, threads: int = 1):
        self.generator, self.device, self.threads = generator, torch.device(device), threads
        self.dtype = PRECISIONS[precision]
        self.network = generator.network().to(self.device)
        with torch.inference_mode():
            steps = torch.arange(generator.settings.diffusion_steps, device=self.device)
            times, classes = self.network.times(steps), self.network.classes.weight
            self.times, self.classes = times.to(self.dtype), classes.to(self.dtype)
        self.network.to(self.dtype)

    def sample_all(self, shards: Iterable[Shard]) -> list[np.ndarray]:
        """The samples of each shard, one a thread at a time."""
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self.threads) as pool:
                return list(pool.map(self.sample, shards))
        finally:  # threads to come take what was set last
            torch.set_num_threads(before)

    def sample(self, shard: Shard) -> np.ndarray:
        """Scaled features (n, width) float32."""
        if self.device.type == "cpu":
            torch.set_num_threads(1)  # other threads take other shards
        seed = int(np.random.default_rng(shard.seed).integers(2**63))
        noise = torch.Generator(self.device).manual_seed(seed)
        classes = torch.from_numpy(shard.classes).to(self.device)
        width = self.generator.scaling.width
        with torch.inference_mode():
            x = torch.randn((len(classes), width), generator=noise, device=self.device)
            scheduler = scheduler_of(self.generator.settings)
            for step in scheduler.timesteps:
                told = self._told(x, int(step), classes)
                x = scheduler.step(told, step, x, generator=noise, return_dict=False)[0]
        return x.cpu().numpy()

    def _told(self, x: Tensor, step: int, classes: Tensor) -> Tensor:
        """What the network tells of rows, guided: (n, width) float32."""
        guidance, x = self.generator.settings.guidance, x.to(self.dtype)
        time = self.times[step]
        if guidance == 1:
            return self.network.denoise(x, time + self.classes[classes]).float()
        hidden = torch.full_like(classes, self.network.any_class)
        both = time + self.classes[torch.cat([classes, hidden])]
        of_class, of_any = self.network.denoise(torch.cat([x, x]), both).float().chunk(2)
        return of_any + guidance * (of_class - of_any)


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
    if precision == "auto":
        precision = default_precision(device)
    size = SHARD_ROWS[device]
    starts = range(0, len(classes), size)
    shards = [
        Shard((*seed, number), np.ascontiguousarray(classes[start : start + size], np.int64))
        for number, start in enumerate(starts)
    ]
    made = _on_all_devices(generator, shards, device, precision)
    scaled = np.concatenate([np.empty((0, generator.scaling.width), np.float32), *made])
    return generator.scaling.outward(scaled)


def _on_all_devices(
    generator: Generator, shards: list[Shard], device: str, precision: str
) -> list[np.ndarray]:
    if device == "cpu" and (not ray.is_initialized() or is_one_node()):
        threads = min(usable_cores(), max(1, len(shards)))
        return Sampler(generator, device, precision, threads).sample_all(shards)
    on_gpu = device == "cuda"
    actors = max(1, min(len(shards), int(resources()["GPU" if on_gpu else "CPU"])))
    made = ray.remote(Sampler).options(num_gpus=int(on_gpu), num_cpus=int(not on_gpu))
    kept = ray.put(generator)
    pool = ActorPool([made.remote(kept, device, precision) for _ in range(actors)])
    return list(pool.map(lambda actor, shard: actor.sample.remote(shard), shards))
