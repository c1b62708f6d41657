"""Molecules a second of the engine and of the plain model, and what bounds them.

Times are of tokenized molecules to features in the host's memory, the best of `REPEATS` runs
taking turns; Triton's compilation comes before them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from unittest import mock

import numpy as np
import torch
from torch.profiler import ProfilerActivity

from bench.cuda.molecules import Conformer
from bench.report import markdown, seconds_of
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.batching import pad_batch, plan_batches
from pipeline.encoders.unimol.encoder import UniMolEncoder
from pipeline.encoders.unimol.model import UniMol, UniMolConfig
from pipeline.encoders.unimol.precision import autocast
from pipeline.encoders.unimol.published_format import load_model
from pipeline.encoders.unimol.tokens import TokenizedMolecule
from pipeline.encoders.unimol.weights import MINI, resolve_weights

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
REPEATS = 3
TOGETHER = 32  # molecules in a batch of unimol_tools
# As a large product in bf16 and a copy reach on an H100; an H200's memory is faster.
PEAK_FLOPS, PEAK_BYTES = 790e12, {"H100": 3.0e12, "H200": 4.3e12}
BASE = "plain model, fp32, batches of 32 as they come"
FORMER_ENOUGH = 1_024  # padded tokens of a batch
ENOUGH = [2**n for n in range(10, 16)]
TOP = 10
FIRST_RUN = """
import sys, time
from bench.cuda.molecules import read
from pipeline.encoders import load_encoder
encoder = load_encoder("unimol", weights=sys.argv[1], device=sys.argv[3], precision="bf16")
molecules = read(sys.argv[2])
for _ in range(2):
    started = time.perf_counter()
    encoder.encode_conformers(molecules)
    print(time.perf_counter() - started)
"""

Prepared = Sequence[TokenizedMolecule]


def encoder_of(weights: str, precision: str) -> UniMolEncoder:
    """The encoder as a job on a GPU makes it."""
    return load_encoder(
        "unimol", weights=weights, device=str(DEVICE), precision=precision,
        encoding_batch_size=4096,
    )  # fmt: skip


def tokenized(encoder: UniMolEncoder, molecules: list[Conformer]) -> Prepared:
    """As the flow prepares its rows."""
    return [encoder.prepare({"atoms": atoms, "coords": xyz}) for atoms, xyz in molecules]


def best_of(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each; the first run of each is not counted."""
    for work in variants.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(REPEATS):
        for name, work in variants.items():
            times[name].append(seconds_of(work))
    return {name: min(taken) for name, taken in times.items()}


def kernels_of(work: Callable[[], object]) -> dict[str, tuple[float, int]]:
    """Seconds and calls of each of the GPU's kernels and copies, longest first."""
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as made:
        work()
    found = {
        e.key: (e.self_device_time_total / 1e6, e.count)
        for e in made.key_averages()
        if e.device_type != torch.autograd.DeviceType.CPU
    }
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def plain_features(
    model: UniMol, prepared: Prepared, batches: Sequence[np.ndarray], dtype: torch.dtype
) -> np.ndarray:
    """Features by the plain model, batch by batch."""
    features = np.empty((len(prepared), model.config.width), dtype=np.float32)
    with torch.no_grad(), autocast(DEVICE, dtype):
        for rows in batches:
            tokens, coords = pad_batch([prepared[i] for i in rows], model.pad)
            features[rows] = model(tokens.to(DEVICE), coords.to(DEVICE)).float().cpu().numpy()
    return features


def compiled(model: UniMol) -> UniMol:
    """The plain model with its parts compiled; layers share what is compiled of one."""
    torch._dynamo.config.recompile_limit = 64
    for part in (model.gbf, model.gbf_proj, *model.encoder.layers):
        part.compile(dynamic=True)
    return model


def compare(molecules: list[Conformer], weights: str) -> list[str]:
    """The engine, as it is and as it was, and the plain model by MolSieve's batches and by 32."""
    variants = _variants(molecules, weights)
    started, best = {}, {}
    for name, work in variants.items():
        started[name] = seconds_of(work)
        best[name] = best_of({"": work})[""]
        print(f"{name}: {len(molecules) / best[name]:,.0f}/s, first {started[name]:.1f} s", flush=1)
    again = best_of(variants)  # taking turns: the best of both counts
    best = {name: min(seconds, again[name]) for name, seconds in best.items()}
    base = best[BASE]
    rows = []
    for name, seconds in best.items():
        busy = sum(taken for taken, _ in kernels_of(variants[name]).values())
        rows.append((name, f"{len(molecules) / seconds:,.0f}", f"{base / seconds:.1f}",
                     f"{100 * busy / seconds:.0f} %", f"{started[name]:.1f}"))  # fmt: skip
    header = ("forward pass", "molecules/s", "times the last", "GPU busy", "first run, s")
    return [*markdown(header, rows), "", *first_runs(molecules, weights)]


def _variants(molecules: list[Conformer], weights: str) -> dict[str, Callable[[], object]]:
    """What `compare` times, by name."""
    encoders = {p: encoder_of(weights, p) for p in ("bf16", "fp16", "fp32")}
    first, former = encoders["bf16"], encoder_of(weights, "bf16")
    former.budget = replace(former.budget, enough_tokens=FORMER_ENOUGH)
    mini, prepared = encoder_of(MINI, "bf16"), tokenized(first, molecules)
    for_mini = tokenized(mini, molecules)
    plan = plan_batches([len(m.tokens) for m in prepared], first.budget)
    in_order = np.split(np.arange(len(prepared)), range(TOGETHER, len(prepared), TOGETHER))

    def model() -> UniMol:
        return load_model(resolve_weights(weights))[0].to(DEVICE)

    def with_former_tiles(encoder: UniMolEncoder) -> object:
        with mock.patch("pipeline.encoders.unimol.engine.cuda.tile", former_tile):
            return encoder.encode_prepared(prepared)

    plain, fast = model(), compiled(model())
    bf16, fp32 = torch.bfloat16, torch.float32
    variants: dict[str, Callable[[], object]] = {
        f"engine, {p}": lambda e=e: e.encode_prepared(prepared) for p, e in encoders.items()
    }
    if DEVICE.type == "cuda":
        variants |= {
            "engine, bf16, former tiles": lambda: with_former_tiles(first),
            "engine, bf16, former tokens": lambda: former.encode_prepared(prepared),
            "engine, bf16, former tiles and tokens": lambda: with_former_tiles(former),
        }
    return variants | {
        "engine, bf16, tokenizing too": lambda: first.encode_conformers(molecules),
        "MolSieve-Mini, engine, bf16": lambda: mini.encode_prepared(for_mini),
        "plain model, bf16 autocast": lambda: plain_features(plain, prepared, plan, bf16),
        "plain model, bf16 autocast, torch.compile": lambda: plain_features(
            fast, prepared, plan, bf16
        ),
        "plain model, bf16 autocast, batches of 32 as they come": lambda: plain_features(
            plain, prepared, in_order, bf16
        ),
        "plain model, fp32": lambda: plain_features(plain, prepared, plan, fp32),
        BASE: lambda: plain_features(plain, prepared, in_order, fp32),
    }


def former_tile(keys: int, dtype: torch.dtype) -> tuple[int, int]:
    """Queries and warps of one program of the attention, as they were at first."""
    return min(keys, max(16, 4096 // keys)), 4


def first_runs(molecules: list[Conformer], weights: str) -> list[str]:
    """What Triton's compilation costs where its cache on disk is empty."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = np.array([len(atoms) for atoms, _ in molecules])
        atoms, coords = zip(*molecules)
        path = f"{folder}/molecules.npz"
        np.savez(path, sizes=sizes, atoms=np.concatenate(atoms), coords=np.concatenate(coords))
        command = [sys.executable, "-c", FIRST_RUN, weights, path, str(DEVICE)]
        told = subprocess.run(
            command, env={**os.environ, "TRITON_CACHE_DIR": f"{folder}/triton"},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    first, second = map(float, told.split())
    return [f"The first process on a machine, which compiles, takes {first - second:.1f} s more."]


def batch_sizes(molecules: list[Conformer], weights: str) -> list[str]:
    """Rates by the padded tokens from which a batch must keep to its share of padding."""
    encoder, rows = encoder_of(weights, "bf16"), []
    usual, prepared = encoder.budget, tokenized(encoder, molecules)
    for window in (prepared, [*prepared, *prepared]):
        for enough in ENOUGH:
            encoder.budget = replace(usual, enough_tokens=enough)
            batches = len(plan_batches([len(m.tokens) for m in window], encoder.budget))
            encoder.take_token_counts()
            best = best_of({"": lambda w=window: encoder.encode_prepared(w)})[""]
            tokens, padding = encoder.take_token_counts()
            share = f"{100 * padding / tokens:.1f} %"
            rate = f"{len(window) / best:,.0f}"
            rows.append((f"{len(window):,}", f"{enough:,}", str(batches), share, rate))
    header = ("molecules at once", "enough tokens", "batches", "padding", "molecules/s")
    return [f"The default is {usual.enough_tokens:,}.", "", *markdown(header, rows)]


def profile(molecules: list[Conformer], weights: str) -> list[str]:
    """The longest kernels, the share of the device's limits, and the host's part; bf16."""
    encoder = encoder_of(weights, "bf16")
    prepared = tokenized(encoder, molecules)
    whole = best_of({"": lambda: encoder.encode_prepared(prepared)})[""]
    kernels = kernels_of(lambda: encoder.encode_prepared(prepared))
    busy = sum(seconds for seconds, _ in kernels.values())
    rows = [
        (f"`{name[:60]}`", str(calls), f"{1e3 * seconds:.1f}", f"{100 * seconds / busy:.1f} %")
        for name, (seconds, calls) in list(kernels.items())[:TOP]
    ]
    return [
        *markdown(("kernel", "calls", "ms", "of the busy time"), rows),
        "",
        *_limits(encoder, prepared, whole, busy),
        "",
        *_host(encoder, molecules, prepared, whole),
    ]


def _limits(encoder: UniMolEncoder, prepared: Prepared, whole: float, busy: float) -> list[str]:
    """Products over the device's rate, pairs over its bandwidth; padding included in neither."""
    config, pair_bytes = UniMolConfig(), encoder.forward.kernels.pair_dtype.itemsize
    lengths = np.array([len(m.tokens) for m in prepared], dtype=np.float64)
    tokens, pairs = lengths.sum(), (lengths**2).sum()
    D, F, G, H = config.width, config.ffn_width, config.gaussians, config.heads
    flops = 2 * config.layers * (tokens * (4 * D * D + 2 * D * F) + 2 * pairs * D)
    flops += 2 * pairs * (G * G + G * H)
    moved = pairs * H * pair_bytes * 2 * config.layers
    card = "H200" if "H200" in torch.cuda.get_device_name() else "H100"
    peak_bytes = PEAK_BYTES[card]
    arithmetic, memory = flops / PEAK_FLOPS, moved / peak_bytes
    return [
        f"{len(prepared):,} molecules take {1e3 * whole:.1f} ms, of which the GPU is busy "
        f"{1e3 * busy:.1f} ms. Their products are {flops / 1e12:.2f} TFLOP, "
        f"{1e3 * arithmetic:.1f} ms at {PEAK_FLOPS / 1e12:.0f} TFLOP/s; the pair tensor, read and "
        f"written once a layer, {moved / 1e9:.1f} GB, {1e3 * memory:.1f} ms at "
        f"{peak_bytes / 1e12:.1f} TB/s. So {100 * arithmetic / whole:.0f} % of the rate of the "
        f"matrix units is reached, {100 * arithmetic / busy:.0f} % while the GPU is busy."
    ]


def _host(
    encoder: UniMolEncoder, molecules: list[Conformer], prepared: Prepared, whole: float
) -> list[str]:
    """What one core does for the same molecules."""
    width = encoder.dim

    def launched() -> float:
        started = time.perf_counter()
        outputs = list(encoder._batched(prepared, encoder.forward))
        taken = time.perf_counter() - started
        outputs[-1][1].cpu()
        return taken

    launches = min(launched() for _ in range(REPEATS))
    forward = encoder.forward
    nothing = torch.zeros(4096, width, device=DEVICE)
    encoder.forward = lambda tokens, coords: nothing[: len(tokens)]
    padded = best_of({"": lambda: encoder.encode_prepared(prepared)})[""]
    encoder.forward = forward
    tokens = best_of({"": lambda: tokenized(encoder, molecules)})[""]
    steps = {
        "tokenizing": tokens,
        "planning, padding and copying": padded,
        "the same and launching all kernels": launches,
        "all, to the last feature": whole,
    }
    return markdown(("on the host", "ms"), [(k, f"{1e3 * v:.1f}") for k, v in steps.items()])
