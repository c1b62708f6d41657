"""The engine's kernels for NVIDIA GPUs, in Triton: each tensor is read and written once.

With TRITON_INTERPRET=1 they run on a CPU, where the tests compare them with the plain model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from pipeline.encoders.unimol.products import Product

DOT_MIN = 16  # fewest rows and columns of a Triton product
TILE = 4096  # logits that a program of four warps holds at most, but above 256 tokens


@triton.jit
def _attend_kernel(
    qkv, pair, mixed, N, H: tl.constexpr, K: tl.constexpr, K_PAD: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One head of one molecule, QUERIES rows against all keys: logits, softmax, times v."""
    bh = tl.program_id(0).to(tl.int64)
    b, h = bh // H, bh % H
    row = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    col = tl.arange(0, KEYS)
    k = tl.arange(0, K_PAD)
    D = H * K
    in_row, in_col, in_k = row < N, col < N, k < K
    head = qkv + b * N * 3 * D + h * K
    q_at = head + row[:, None] * 3 * D + k[None, :]
    k_at = head + D + col[None, :] * 3 * D + k[:, None]
    v_at = head + 2 * D + col[:, None] * 3 * D + k[None, :]
    q = tl.load(q_at, mask=in_row[:, None] & in_k[None, :], other=0.0)
    keys = tl.load(k_at, mask=in_k[:, None] & in_col[None, :], other=0.0)
    v = tl.load(v_at, mask=in_col[:, None] & in_k[None, :], other=0.0)

    pair_at = pair + bh * N * N + row[:, None] * N + col[None, :]
    inside = in_row[:, None] & in_col[None, :]
    logits = tl.load(pair_at, mask=inside, other=float("-inf")).to(tl.float32)
    logits += tl.dot(q, keys, input_precision="ieee")
    tl.store(pair_at, logits.to(pair.dtype.element_ty), mask=inside)
    logits = tl.where(in_row[:, None], logits, 0.0)  # rows past the end: finite, never stored
    weights = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    total = tl.sum(weights, axis=1)[:, None]
    out = tl.dot(weights.to(v.dtype), v, input_precision="ieee") / total
    out_at = mixed + b * N * D + row[:, None] * D + h * K + k[None, :]
    tl.store(out_at, out.to(mixed.dtype.element_ty), mask=in_row[:, None] & in_k[None, :])


@triton.jit
def _norm_kernel(
    x, update, normed, weight, bias, eps, D, ADD: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One row: x += update, then its layer norm."""
    row = tl.program_id(0).to(tl.int64) * D
    col = tl.arange(0, COLUMNS)
    inside = col < D
    values = tl.load(x + row + col, mask=inside, other=0.0)
    if ADD:
        values += tl.load(update + row + col, mask=inside, other=0.0).to(tl.float32)
        tl.store(x + row + col, values, mask=inside)
    centred = tl.where(inside, values - tl.sum(values) / D, 0.0)
    scaled = centred * tl.rsqrt(tl.sum(centred * centred) / D + eps)
    scaled = scaled * tl.load(weight + col, mask=inside, other=0.0)
    scaled += tl.load(bias + col, mask=inside, other=0.0)
    tl.store(normed + row + col, scaled.to(normed.dtype.element_ty), mask=inside)


@triton.jit
def _gaussian_kernel(
    scale, shift, distance, means, exponents, channels, P, G,
    PAIRS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """PAIRS pairs of atoms, all channels."""
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    g = tl.arange(0, CHANNELS)
    in_pair, in_g = pair < P, g < G
    x = tl.load(scale + pair, mask=in_pair, other=0.0)
    x = x * tl.load(distance + pair, mask=in_pair, other=0.0)
    x += tl.load(shift + pair, mask=in_pair, other=0.0)
    z = x[:, None] - tl.load(means + g, mask=in_g, other=0.0)[None, :]
    values = tl.exp(tl.load(exponents + g, mask=in_g, other=0.0)[None, :] * z * z)
    at = channels + pair[:, None] * G + g[None, :]
    tl.store(at, values.to(channels.dtype.element_ty), mask=in_pair[:, None] & in_g[None, :])


def tile(keys: int, dtype: torch.dtype) -> tuple[int, int]:
    """Queries and warps of one program of the attention, by the keys that it takes at once.

    In 16 bits the fastest of those tried (bench/cuda.md). In 32 bits, and above 512 keys, the
    registers of fewer warps would not hold the logits.
    """
    if dtype == torch.float32 or keys > 512:
        return min(keys, max(DOT_MIN, TILE // keys)), 4
    return {32: (32, 2), 512: (DOT_MIN, 2)}.get(keys, (DOT_MIN, 1))


class CudaKernels:
    """Triton kernels around torch's matrix products; pairs in bfloat16, if the products are."""

    gaussian_rows = 1 << 18  # their channels take 64 MiB in 16 bits

    def __init__(self, dtype: torch.dtype, heads: int):
        self.dtype, self.heads = dtype, heads
        # Logits of any size fit bfloat16; float16 would overflow above 65,504.
        self.pair_dtype = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32

    def product(self, weight: Tensor, bias: Tensor, gelu: bool = False) -> Product:
        """As `Kernels.product`."""
        weight, bias = weight.to(self.dtype), bias.to(self.dtype)
        if gelu:
            return lambda x: F.gelu(F.linear(x, weight, bias))
        return lambda x: F.linear(x, weight, bias)

    def norm(self, x_BND: Tensor, update_BND: Tensor | None, norm: nn.LayerNorm) -> Tensor:
        """As `Kernels.norm`, in one pass."""
        D = x_BND.shape[-1]
        normed_BND = torch.empty_like(x_BND, dtype=self.dtype)
        _norm_kernel[(x_BND.numel() // D,)](
            x_BND, x_BND if update_BND is None else update_BND, normed_BND,
            norm.weight, norm.bias, norm.eps, D,
            ADD=update_BND is not None, COLUMNS=triton.next_power_of_2(D),
        )  # fmt: skip
        return normed_BND

    def attend(self, qkv: Tensor, pair_BHNN: Tensor) -> Tensor:
        """As `Kernels.attend`, in one pass over the pairs."""
        B, H, N, _ = pair_BHNN.shape
        D = qkv.shape[-1] // 3
        keys = max(DOT_MIN, triton.next_power_of_2(N))
        queries, warps = tile(keys, self.dtype)
        mixed = torch.empty((B, N, D), dtype=qkv.dtype, device=qkv.device)
        _attend_kernel[(B * H, triton.cdiv(N, queries))](
            qkv, pair_BHNN, mixed, N,
            H=H, K=D // H, K_PAD=max(DOT_MIN, triton.next_power_of_2(D // H)),
            QUERIES=queries, KEYS=keys, num_warps=warps,
        )  # fmt: skip
        return mixed

    def gaussians(
        self, scale_BNN: Tensor, shift_BNN: Tensor, distance_BNN: Tensor, means: Tensor,
        exponents: Tensor,
    ) -> Tensor:  # fmt: skip
        """As `Kernels.gaussians`, in one pass."""
        G, pairs = len(means), distance_BNN.numel()
        channels = torch.empty(
            (*distance_BNN.shape, G), dtype=self.dtype, device=distance_BNN.device
        )
        _gaussian_kernel[(triton.cdiv(pairs, 32),)](
            scale_BNN, shift_BNN, distance_BNN, means, exponents, channels, pairs, G,
            PAIRS=32, CHANNELS=triton.next_power_of_2(G),
        )  # fmt: skip
        return channels
