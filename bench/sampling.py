"""Samples a second of a generator: shards over the cores, a plain loop, torch.compile, the limit.

    python -m bench.sampling

The model has the default size and random weights, which cost what trained ones do; every way draws
the same rows of two classes by all DDPM steps. The limit is what the cores do of the model's matrix
products alone, in shapes of a shard and of all rows at once, whichever is faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.report import cpu_name, markdown, seconds_of
from pipeline.detectors.feature_space import Standard
from pipeline.encoders.unimol.precision import multiplies_natively
from pipeline.generation.diffusion.denoiser import Denoiser
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.diffusion.noise import scheduler_of
from pipeline.generation.diffusion.sampling import SHARD_ROWS, draw
from pipeline.generation.diffusion.scaling import Scaling
from pipeline.generation.settings import GeneratorSettings
from pipeline.runtime.nodes.machine import usable_cores

AT_ONCE = 100  # rows of one class that the earlier scripts' loop takes at a time


def random_generator(columns: int, settings: GeneratorSettings) -> Generator:
    """A generator of two classes with random weights."""
    torch.manual_seed(0)
    network = Denoiser(columns, 2, settings.width, settings.blocks)
    torch.nn.init.normal_(network.outward.weight, std=0.02)
    plain = Scaling(Standard(np.zeros(columns, np.float32), np.ones(columns, np.float32)))
    return Generator(settings, ("a", "b"), plain, network.state_dict())


@torch.no_grad()
def plain_loop(
    generator: Generator, network: Callable[..., Tensor], classes: np.ndarray, size: int
) -> None:
    """As the earlier scripts: some rows at a time, what is known of a step made anew each time."""
    for start in range(0, len(classes), size):
        labels = torch.from_numpy(classes[start : start + size])
        scheduler = scheduler_of(generator.settings)
        x = torch.randn(len(labels), generator.scaling.width)
        for step in scheduler.timesteps:
            told = network(x, torch.full((len(labels),), int(step)), labels)
            x = scheduler.step(told, step, x, return_dict=False)[0]


def products(generator: Generator) -> list[tuple[int, int]]:
    """(in, out) of the matrix products of one step."""
    layers = generator.network()
    return [
        (layer.in_features, layer.out_features)
        for name, layer in layers.named_modules()
        if isinstance(layer, torch.nn.Linear) and not name.startswith("time")
    ]


def limit(generator: Generator, rows: int, dtype: torch.dtype, seconds: float) -> float:
    """Floating-point operations a second of the model's products alone, on all cores."""
    shapes, cores = products(generator), usable_cores()

    def rate(rows: int, threads: int) -> float:
        torch.set_num_threads(threads)
        weights = [torch.randn(out, into, dtype=dtype) for into, out in shapes]
        inputs = {into: torch.randn(rows, into, dtype=dtype) for into, _ in shapes}
        done, started = 0, time.perf_counter()
        with torch.inference_mode():
            while time.perf_counter() - started < seconds:
                for weight in weights:
                    torch.nn.functional.linear(inputs[weight.shape[1]], weight)
                done += 2 * rows * sum(into * out for into, out in shapes)
        return done / (time.perf_counter() - started)

    together = rate(rows, cores)
    with ThreadPoolExecutor(cores) as pool:
        apart = sum(pool.map(lambda _: rate(SHARD_ROWS["cpu"], 1), range(cores)))
    torch.set_num_threads(cores)
    return max(together, apart)


def main() -> None:
    """Measure, and write bench/sampling.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--steps", type=int, default=50, help="of DDPM; seconds grow with them")
    given = parser.parse_args()
    settings = GeneratorSettings(diffusion_steps=given.steps)
    generator = random_generator(given.columns, settings)
    network = generator.network()
    compiled = torch.compile(network)
    classes = np.arange(given.rows) % 2
    cores = usable_cores()
    torch.set_num_threads(cores)
    flops = 2 * given.rows * settings.diffusion_steps * sum(a * b for a, b in products(generator))
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    dtypes = {name: dtype for name, dtype in dtypes.items() if multiplies_natively(dtype)}
    ways: dict[str, Callable[[np.ndarray], Any]] = {
        f"plain loop, {AT_ONCE} rows at a time, fp32": lambda some: plain_loop(
            generator, network, some, AT_ONCE
        ),
        "torch.compile of the step, all rows at once, fp32": lambda some: plain_loop(
            generator, compiled, some, given.rows
        ),
    }
    for name in dtypes:
        ways[f"shards over {cores} cores, {name}"] = lambda some, name=name: draw(
            generator, some, (0,), precision=name
        )
    peaks = {name: limit(generator, given.rows, dtype, 5.0) for name, dtype in dtypes.items()}
    rows, first = [], None
    for name, work in ways.items():
        work(classes if "compile" in name else classes[:64])  # warms up
        seconds = seconds_of(partial(work, classes))
        first = first or seconds
        share = flops / seconds / peaks[name.rsplit(" ", 1)[1]]
        rows.append(
            (name, f"{given.rows / seconds:,.0f}", f"{first / seconds:.2f}", f"{100 * share:.0f} %")
        )
        print(*rows[-1], flush=True)
    page = [
        "# Samples of a generator",
        "",
        f"`python -m bench.sampling` on {cpu_name()}, {cores} cores, torch {torch.__version__}. "
        f"{given.rows:,} rows of {given.columns} columns, {settings.diffusion_steps} DDPM steps, "
        f"width {settings.width}, {settings.blocks} blocks; one run each. "
        "The limit is the model's matrix products alone: "
        + ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in peaks.items())
        + ".",
        "",
        *markdown(("way", "samples a second", "times the plain loop", "share of the limit"), rows),
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join([*page, ""]))
    print("\n".join(page))


if __name__ == "__main__":
    main()
