"""Seconds of the attention kernel in bf16, by the queries and warps of one program."""

from __future__ import annotations

import torch
import triton
from triton.testing import do_bench

from bench.cuda.molecules import Conformer
from bench.report import markdown
from pipeline.encoders.unimol.engine.cuda import DOT_MIN, _attend_kernel, tile
from pipeline.encoders.unimol.model import UniMolConfig

TOKENS, MOLECULE_TOKENS = 16_384, (16, 20, 25, 32, 40, 64, 130, 258)
QUERIES, WARPS = (16, 32, 64), (1, 2, 4)


def attention(molecules: list[Conformer], weights: str) -> list[str]:
    """One layer's attention of a batch of molecules of one length."""
    rows = []
    for N in MOLECULE_TOKENS:
        keys = max(DOT_MIN, triton.next_power_of_2(N))
        tiles = [(q, w) for q in QUERIES if q <= keys for w in WARPS]
        taken = {(q, w): _milliseconds(N, keys, q, w) for q, w in tiles}
        told = "; ".join(f"{q} × {w}: {1e3 * ms:.0f}" for (q, w), ms in taken.items())
        best, used = min(taken, key=taken.get), tile(keys, torch.bfloat16)
        rows.append((str(N), told, "{} × {}".format(*best), "{} × {}".format(*used)))
    header = ("tokens", "µs by queries × warps", "best", "used")
    return [f"Batches of {TOKENS:,} tokens, bf16.", "", *markdown(header, rows)]


def _milliseconds(N: int, keys: int, queries: int, warps: int) -> float:
    config, B = UniMolConfig(), TOKENS // N
    H, D = config.heads, config.width
    qkv, pair, mixed = (
        torch.randn(shape, device="cuda", dtype=torch.bfloat16)
        for shape in ((B, N, 3 * D), (B, H, N, N), (B, N, D))
    )
    return do_bench(
        lambda: _attend_kernel[(B * H, triton.cdiv(N, queries))](
            qkv, pair, mixed, N, H=H, K=D // H, K_PAD=DOT_MIN, QUERIES=queries, KEYS=keys,
            num_warps=warps,
        ),
        warmup=4, rep=12, return_mode="median",
    )  # fmt: skip
