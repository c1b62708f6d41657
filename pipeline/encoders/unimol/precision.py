"""Precisions of the matrix products, and which one a device does best."""

from __future__ import annotations

from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def default_precision(device: str) -> str:
    """The precision that "auto" means on a device.

    bf16 on GPUs since Ampere (taken for granted where this machine has no GPU to ask) and on
    CPUs that are faster in it; fp16 on older GPUs, fp32 on other CPUs.
    """
    if device.startswith("cuda"):
        old = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] < 8
        return "fp16" if old else "bf16"
    return "bf16" if faster_in_bf16() else "fp32"


def settled(device: str, precision: str) -> tuple[torch.device, torch.dtype]:
    """What "auto", or a name, means of an encoder's device and of its precision.

    Raises
    ------
    ValueError
        If there is no such precision, or the device is neither a CPU nor a CUDA GPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = default_precision(device)
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision is {precision!r}, expected auto or one of {', '.join(PRECISIONS)}"
        )
    found = torch.device(device)
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}, expected auto, cpu or cuda")
    return found, PRECISIONS[precision]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products of plain torch modules in a precision; float32 leaves them as they are."""
    lower = dtype != torch.float32
    return torch.autocast(device.type, dtype if lower else None, enabled=lower)


def multiplies_natively(dtype: torch.dtype) -> bool:
    """Whether this CPU has units for matrix products in a 16-bit dtype."""
    if dtype == torch.bfloat16:
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return dtype == torch.float32 or torch.cpu._is_amx_fp16_supported()


def faster_in_bf16() -> bool:
    """Whether this CPU's matrix products are faster in bf16 than in float32.

    So they are with AMX, and with AVX-512's bf16 alone on AMD's cores and Intel's first. Intel's
    cores since Sapphire Rapids, which have AVX-512 FP16 too, are made for AMX; where a virtual
    machine hides that, a product in bf16 takes 1.8 times as long as in float32 (bench/bf16.md).
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    text = CPUINFO.read_text() if CPUINFO.exists() else ""
    made_for_amx = "GenuineIntel" in text and " avx512_fp16" in text
    return multiplies_natively(torch.bfloat16) and not made_for_amx
