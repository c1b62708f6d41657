"""What the engine asks of a device."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.encoders.unimol.products import Product


class Kernels(Protocol):
    """What a device must offer. `dtype` is that of matrix products and of their results."""

    dtype: torch.dtype
    pair_dtype: torch.dtype  # what the pair tensor is kept in
    gaussian_rows: int  # pairs whose Gaussian channels are made at once

    def product(self, weight: Tensor, bias: Tensor, gelu: bool = False) -> Product:
        """A function from x (…, in) to act(x·Wᵀ + b) (…, out)."""
        ...

    def norm(self, x_BND: Tensor, update_BND: Tensor | None, norm: nn.LayerNorm) -> Tensor:
        """Add the update to x (float32) in place; the layer norm of the sum, in dtype."""
        ...

    def attend(self, qkv: Tensor, pair_BHNN: Tensor) -> Tensor:
        """Attention of packed q, k, v (B, N, 3·D); adds the logits to pair in place: (B, N, D)."""
        ...

    def gaussians(
        self, scale_BNN: Tensor, shift_BNN: Tensor, distance_BNN: Tensor, means: Tensor,
        exponents: Tensor,
    ) -> Tensor:  # fmt: skip
        """exp(exponent·(scale·distance + shift − mean)²) of each channel: (B, N, N, G)."""
        ...
