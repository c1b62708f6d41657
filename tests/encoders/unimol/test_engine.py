"""The engine computes what the plain model does, on both devices' kernels; a full device."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from pipeline.encoders import load_encoder
from pipeline.encoders.unimol import precision as precision_module
from pipeline.encoders.unimol.batching import Budget
from pipeline.encoders.unimol.engine.cpu import CpuKernels
from pipeline.encoders.unimol.engine.cuda import CudaKernels
from pipeline.encoders.unimol.engine.forward import Engine
from pipeline.encoders.unimol.model import UniMolConfig
from tests.conftest import SMALL
from tests.reference import random_model

KERNELS = {"cpu": CpuKernels, "cuda": CudaKernels}
# The GPU kernels run in Triton's interpreter on the CPU where there is no GPU.
PLACE = {"cpu": "cpu", "cuda": "cuda" if torch.cuda.is_available() else "cpu"}
LIMITS = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
ODD = UniMolConfig(layers=3, width=60, ffn_width=36, heads=6, gaussians=12)
ONE_LAYER = UniMolConfig(layers=1, width=32, ffn_width=64, heads=4, gaussians=8)


def inputs(pad: int, lengths=(21, 3, 20, 14)) -> tuple[torch.Tensor, torch.Tensor]:
    """Random molecules, padded at the end."""
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(4, 30, (len(lengths), max(lengths)), generator=generator)
    coords = 3 * torch.randn(len(lengths), max(lengths), 3, generator=generator)
    for row, length in enumerate(lengths):
        tokens[row, length:] = pad
        coords[row, length:] = 0
    return tokens, coords


def largest_error(made: torch.Tensor, expected: torch.Tensor) -> float:
    return ((made.double() - expected).norm(dim=-1) / expected.norm(dim=-1)).max().item()


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("device", KERNELS)
@pytest.mark.parametrize("config", [SMALL, ODD, ONE_LAYER], ids=["small", "odd sizes", "one layer"])
def test_the_engine_equals_the_plain_model_in_float64(device, dtype, config):
    if PLACE[device] != device and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter cannot multiply bfloat16 matrices")
    model = random_model(config)
    tokens, coords = inputs(model.pad)
    expected = model.double()(tokens, coords.double())
    model = random_model(config).to(PLACE[device])
    engine = Engine(model, KERNELS[device](dtype, config.heads))
    made = engine(tokens.to(PLACE[device]), coords.to(PLACE[device]))
    assert made.dtype == torch.float32
    assert largest_error(made.cpu(), expected) < LIMITS[dtype]
    assert largest_error(expected[:1], expected[1:2]) > 0.1  # else nothing would be compared


@pytest.mark.parametrize("N", [3, 16, 33, 140, 258])
@pytest.mark.parametrize("device", KERNELS)
def test_attention_adds_the_logits_in_place(device, N):
    heads, width = 4, 32
    generator = torch.Generator().manual_seed(N)
    qkv = torch.randn(2, N, 3 * width, generator=generator)
    pair = torch.randn(2, heads, N, N, generator=generator)
    pair[1, :, :, N - 1] = float("-inf")
    q, k, v = qkv.double().view(2, N, 3, heads, -1).permute(2, 0, 3, 1, 4)
    logits = pair.double() + q @ k.transpose(-1, -2)
    expected = (logits.softmax(-1) @ v).transpose(1, 2).reshape(2, N, width)
    qkv, pair = qkv.to(PLACE[device]), pair.to(PLACE[device])
    made = KERNELS[device](torch.float32, heads).attend(qkv, pair).cpu()
    pair = pair.cpu()
    torch.testing.assert_close(made.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pair.double(), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("device", KERNELS)
def test_norm_adds_the_update_first(device, dtype, tolerance):
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(48, device=PLACE[device]).requires_grad_(False)
    norm.weight.uniform_(0.5, 2)
    norm.bias.uniform_(-1, 1)
    x, update = 0.5 + torch.randn(2, 3, 48), torch.randn(2, 3, 48).to(dtype)
    x, update = x.to(PLACE[device]), update.to(PLACE[device])
    total = x + update
    made = KERNELS[device](dtype, 1).norm(x, update, norm)
    torch.testing.assert_close(x, total)
    assert made.dtype == dtype
    torch.testing.assert_close(made.float(), norm(total), rtol=tolerance, atol=tolerance)
    again = KERNELS[device](dtype, 1).norm(x, None, norm)
    torch.testing.assert_close(x, total)
    torch.testing.assert_close(again, made)


@pytest.mark.parametrize("device", KERNELS)
def test_gaussians_of_narrow_and_wide_channels(device):
    generator = torch.Generator().manual_seed(0)
    scale, shift, distance = (torch.rand(2, 5, 5, generator=generator) for _ in range(3))
    means, std = torch.linspace(0, 2, 12), torch.logspace(-3, 1, 12)
    x = (scale.double() * distance + shift).unsqueeze(-1)
    expected = torch.exp(-0.5 * ((x - means) / std.double()) ** 2)
    arguments = (scale, shift, distance, means, -0.5 / std**2)
    kernels = KERNELS[device](torch.float32, 1)
    made = kernels.gaussians(*(x.to(PLACE[device]) for x in arguments)).cpu()
    torch.testing.assert_close(made.double(), expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "vendor", "avx512_fp16", "expected"),
    [
        (True, True, "GenuineIntel", True, "bf16"),
        (False, True, "GenuineIntel", True, "fp32"),  # made for AMX, which is hidden
        (False, True, "GenuineIntel", False, "bf16"),  # Cooper Lake
        (False, True, "AuthenticAMD", True, "bf16"),
        (False, False, "AuthenticAMD", False, "fp32"),
        (False, True, None, True, "bf16"),  # a system that has no such file
    ],
)
def test_bf16_is_the_default_where_the_cpu_is_faster_in_it(
    amx, avx512_bf16, vendor, avx512_fp16, expected, monkeypatch, tmp_path
):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(precision_module, "CPUINFO", tmp_path / "cpuinfo")
    if vendor:
        flags = f"flags\t\t: avx512f avx512_bf16{' avx512_fp16' * avx512_fp16} vaes\n"
        (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {vendor}\n{flags}")
    assert precision_module.default_precision("cpu") == expected


def test_the_default_precision_is_the_encoders(monkeypatch, small_weights):
    for faster, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(precision_module, "faster_in_bf16", lambda faster=faster: faster)
        assert precision_module.default_precision("cpu") == expected
        assert precision_module.default_precision("cuda") == "bf16"
        encoder = load_encoder("unimol", weights=str(small_weights), device="cpu")
        assert encoder.forward.kernels.dtype == precision_module.PRECISIONS[expected]


CONFORMERS = [
    (["C"] * n, np.random.RandomState(n).normal(size=(n, 3))) for n in (30, 5, 12, 12, 28, 7)
]


def failing_above(encoder, tokens: int, monkeypatch, error: RuntimeError) -> list[int]:
    """Make the forward pass fail on more tokens than these, as a full device would."""
    forward, seen = encoder.forward, []

    def limited(batch, coords):
        seen.append(batch.numel())
        if batch.numel() > tokens:
            raise error
        return forward(batch, coords)

    monkeypatch.setattr(encoder, "forward", limited)
    return seen


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["torch", "cublas", "cpu"])
def test_out_of_memory_halves_the_budget_and_loses_nothing(
    small_weights, monkeypatch, caplog, error
):
    budget = Budget(molecules=100, tokens=10**6, pairs=10**6, enough_tokens=10**6)
    encoder = load_encoder(
        "unimol", weights=str(small_weights), device="cpu", precision="fp32", budget=budget
    )
    expected = encoder.encode_conformers(CONFORMERS)
    seen = failing_above(encoder, 40, monkeypatch, error)
    with caplog.at_level(logging.WARNING):
        made = encoder.encode_conformers(CONFORMERS)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)
    assert "ran out of memory on 6 molecules of up to 32 tokens" in caplog.text
    assert encoder.budget.tokens <= 48 and encoder.budget.molecules == 100
    before = len(seen)
    encoder.encode_conformers(CONFORMERS[1:4])
    assert max(seen[before:]) <= 40  # the smaller budget stays


def test_out_of_memory_on_long_molecules_leaves_batches_of_short_ones_wide(
    small_weights, monkeypatch
):
    budget = Budget(molecules=100, tokens=1000, pairs=10**6, enough_tokens=10**6)
    encoder = load_encoder("unimol", weights=str(small_weights), device="cpu", budget=budget)
    failing_above(encoder, 500, monkeypatch, OUT_OF_MEMORY[0])
    encoder.encode_conformers([(["C"] * 200, np.zeros((200, 3)))] * 4 + CONFORMERS[1:2] * 60)
    seen = failing_above(encoder, 500, monkeypatch, OUT_OF_MEMORY[0])
    encoder.encode_conformers(CONFORMERS[1:2] * 60)
    assert seen == [57 * 7, 3 * 7]  # all that 404 tokens hold


def test_a_molecule_that_no_budget_fits_is_an_error_that_says_so(small_weights, monkeypatch):
    encoder = load_encoder("unimol", weights=str(small_weights), device="cpu", precision="fp32")
    failing_above(encoder, 20, monkeypatch, OUT_OF_MEMORY[0])
    with pytest.raises(MemoryError, match="no room for one molecule of 32 tokens"):
        encoder.encode_conformers(CONFORMERS)


def test_other_errors_are_not_taken_for_a_full_device(small_weights, monkeypatch):
    encoder = load_encoder("unimol", weights=str(small_weights), device="cpu", precision="fp32")
    failing_above(encoder, 0, monkeypatch, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        encoder.encode_conformers(CONFORMERS)


def test_old_gpus_get_fp16_by_default_and_other_devices_are_refused(monkeypatch, small_weights):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, expected in (((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        assert precision_module.default_precision("cuda") == expected
    with pytest.raises(ValueError, match="device is 'mps', expected auto, cpu or cuda"):
        load_encoder("unimol", weights=str(small_weights), device="mps")


def test_tokens_and_padding_are_counted_since_last_asked(small_weights):
    encoder = load_encoder("unimol", weights=str(small_weights), device="cpu")
    encoder.encode_conformers([CONFORMERS[1], CONFORMERS[5]])  # 7 and 9 tokens
    assert encoder.take_token_counts() == (18, 2)
    assert encoder.take_token_counts() == (0, 0)
