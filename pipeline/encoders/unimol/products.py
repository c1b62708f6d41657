"""Matrix products with fixed weights, in the way that is fastest on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.encoders.unimol.precision import multiplies_natively

Product = Callable[[Tensor], Tensor]


def cpu_product(weight: Tensor, bias: Tensor, dtype: torch.dtype, gelu: bool = False) -> Product:
    """x ↦ x · weightᵀ + bias on a CPU, GELU of it if asked; weights laid out once for oneDNN.

    Parameters
    ----------
    weight, bias : (out, in) and (out,), in any dtype.
    dtype : that of the product, of its input and of its output.
    """
    weight, bias = weight.to(dtype), bias.to(dtype)
    if not (torch.backends.mkldnn.is_available() and multiplies_natively(dtype)):
        plain = partial(F.linear, weight=weight, bias=bias)
        return (lambda x: F.gelu(plain(x))) if gelu else plain
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    post = ("gelu", [], "none") if gelu else ("none", [], "")
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, *post)
