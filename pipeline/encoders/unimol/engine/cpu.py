"""The engine's kernels for CPUs: torch's own operators and oneDNN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.encoders.unimol.products import Product, cpu_product


class CpuKernels:
    """oneDNN products with weights laid out once; pairs in float32."""

    pair_dtype = torch.float32
    gaussian_rows = 1024  # their channels stay in the L2 cache

    def __init__(self, dtype: torch.dtype, heads: int):
        self.dtype, self.heads = dtype, heads

    def product(self, weight: Tensor, bias: Tensor, gelu: bool = False) -> Product:
        """As `Kernels.product`; GELU on the way out of the product."""
        return cpu_product(weight, bias, self.dtype, gelu)

    def norm(self, x_BND: Tensor, update_BND: Tensor | None, norm: nn.LayerNorm) -> Tensor:
        """As `Kernels.norm`."""
        if update_BND is not None:
            x_BND += update_BND
        return norm(x_BND).to(self.dtype)

    def attend(self, qkv: Tensor, pair_BHNN: Tensor) -> Tensor:
        """As `Kernels.attend`; the product q·kᵀ itself adds to the pairs, in float32."""
        B, N, D3 = qkv.shape
        parts = qkv.view(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = (part.reshape(B * self.heads, N, -1) for part in parts)
        pair = pair_BHNN.view(-1, N, N)
        pair.baddbmm_(q.float(), k.float().transpose(1, 2))
        mixed = pair.softmax(dim=-1).to(self.dtype) @ v
        return mixed.view(B, self.heads, N, -1).transpose(1, 2).reshape(B, N, D3 // 3)

    def gaussians(
        self, scale_BNN: Tensor, shift_BNN: Tensor, distance_BNN: Tensor, means: Tensor,
        exponents: Tensor,
    ) -> Tensor:  # fmt: skip
        """As `Kernels.gaussians`; for few molecules at a time, so that all stays in the cache."""
        x = torch.addcmul(shift_BNN, scale_BNN, distance_BNN).unsqueeze(-1)
        return (x - means).square_().mul_(exponents).exp_().to(self.dtype)
