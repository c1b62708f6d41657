"""Precisions of the matrix products, and which one a device does best."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Product = Callable[[Tensor], Tensor]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def default_precision(device: str) -> str:
    """The precision that "auto" means on a device.

    bf16 on GPUs since Ampere (taken for granted where this machine has no GPU to ask) and on
    CPUs with units for it; fp16 on older GPUs, fp32 on other CPUs.
    """
    if device.startswith("cuda"):
        old = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] < 8
        return "fp16" if old else "bf16"
    return "bf16" if multiplies_natively(torch.bfloat16) else "fp32"


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products of plain torch modules in a precision; float32 leaves them as they are."""
    lower = dtype != torch.float32
    return torch.autocast(device.type, dtype if lower else None, enabled=lower)


def multiplies_natively(dtype: torch.dtype) -> bool:
    """Whether this CPU has units for matrix products in a 16-bit dtype."""
    if dtype == torch.bfloat16:
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return dtype == torch.float32 or torch.cpu._is_amx_fp16_supported()


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
