"""What each trick of the engine's CPU path gains: the forward pass with one of them undone.

`python -m bench.engine` (after `make bench`, which fetches the molecules) writes engine.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.report import cpu_name, markdown, moses, seconds_of
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.engine.cpu import CpuKernels
from pipeline.encoders.unimol.engine.forward import Engine, _Layer
from pipeline.encoders.unimol.model import UniMol
from pipeline.encoders.unimol.precision import PRECISIONS, multiplies_natively
from pipeline.encoders.unimol.products import Product
from pipeline.encoders.unimol.published_format import load_model

MOLECULES, REPEATS = 256, 3


class NoLayout(CpuKernels):
    """Weights as they are, multiplied by torch's linear; GELU in a pass of its own."""

    def product(self, weight: Tensor, bias: Tensor, gelu: bool = False) -> Product:
        """As `Kernels.product`."""
        weight, bias = weight.to(self.dtype), bias.to(self.dtype)
        if gelu:
            return lambda x: F.gelu(F.linear(x, weight, bias))
        return lambda x: F.linear(x, weight, bias)


class SeparateGelu(CpuKernels):
    """GELU in a pass of its own."""

    def product(self, weight: Tensor, bias: Tensor, gelu: bool = False) -> Product:
        """As `Kernels.product`."""
        plain = super().product(weight, bias)
        return (lambda x: F.gelu(plain(x))) if gelu else plain


class SeparateLogits(CpuKernels):
    """The logits in a tensor of their own, then added to the pairs."""

    def attend(self, qkv: Tensor, pair_BHNN: Tensor) -> Tensor:
        """As `Kernels.attend`."""
        B, N, D3 = qkv.shape
        q, k, v = qkv.view(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        pair_BHNN += q.float() @ k.float().transpose(-1, -2)
        mixed = pair_BHNN.softmax(dim=-1).to(self.dtype) @ v
        return mixed.transpose(1, 2).reshape(B, N, D3 // 3)


class WholeGaussians(CpuKernels):
    """The Gaussian channels of all pairs at once."""

    gaussian_rows = 1 << 30


class WholeLayers(Engine):
    """Layer 0 and the last layer computed as every other."""

    def __init__(self, model: UniMol, kernels: CpuKernels):
        super().__init__(model, kernels)
        last = _Layer(model.encoder.layers[-1], kernels, last=False)
        self.layers = [*self.layers, last]

    @torch.inference_mode()
    def __call__(self, tokens_BN: Tensor, coords_BN3: Tensor) -> Tensor:
        """As `Engine.__call__`."""
        x_BND, pair_BHNN = self.embedding[tokens_BN], self.pairs(tokens_BN, coords_BN3)
        update_BND = None
        for layer in self.layers:
            qkv = layer.qkv(self.kernels.norm(x_BND, update_BND, layer.attention_norm))
            update_BND = layer.feed_forward(x_BND, self.kernels.attend(qkv, pair_BHNN))
        return self.final_norm(x_BND[:, 0] + update_BND[:, 0])


def main() -> None:
    """Time every variant in turn and write engine.md."""
    from pipeline.conformers.rdkit_embedder import embed
    from tests.reference import write_checkpoints

    torch.set_num_threads(1)
    precision = "bf16" if multiplies_natively(torch.bfloat16) else "fp32"
    dtype = PRECISIONS[precision]
    variants: dict[str, Callable[[UniMol], Callable[[Tensor, Tensor], Tensor]]] = {
        "the engine": lambda m: Engine(m, CpuKernels(dtype, m.config.heads)),
        "without oneDNN's layout of the weights": lambda m: Engine(m, NoLayout(dtype, 64)),
        "without GELU inside the product": lambda m: Engine(m, SeparateGelu(dtype, 64)),
        "without q·kᵀ added in place": lambda m: Engine(m, SeparateLogits(dtype, 64)),
        "without Gaussians by the cacheful": lambda m: Engine(m, WholeGaussians(dtype, 64)),
        "without shortcuts in the first and last layer": lambda m: WholeLayers(
            m, CpuKernels(dtype, 64)
        ),
        "fp32 in place of bf16": lambda m: Engine(m, CpuKernels(torch.float32, 64)),
        "plain model, fp32": lambda m: torch.inference_mode()(m),
    }
    made = [(c.atoms, c.coords) for c in map(embed, moses(MOLECULES))]
    with tempfile.TemporaryDirectory() as name:
        weights = str(write_checkpoints(Path(name))["official"])
        encoder = load_encoder("unimol", weights=weights, device="cpu", precision=precision)
        with torch.inference_mode():
            forwards = {k: build(load_model(encoder.weights)[0]) for k, build in variants.items()}
    times: dict[str, list[float]] = {k: [] for k in forwards}
    for _ in range(REPEATS):
        for what, forward in forwards.items():
            encoder.forward = forward
            encoder.encode_conformers(made[:32])
            times[what].append(seconds_of(lambda: encoder.encode_conformers(made)))
    best = {what: min(taken) for what, taken in times.items()}
    whole = best["the engine"]
    lines = [
        "# What each trick of the engine gains on a CPU",
        "",
        f"`python -m bench.engine` on one core of {cpu_name()}, torch {torch.__version__}, "
        f"{precision}, {MOLECULES} molecules of MOSES' scaffold test set, random weights of the "
        f"published shape, best of {REPEATS} runs taking turns.",
        "",
        *markdown(
            ("forward pass", "molecules/s", "time against the engine"),
            [[k, f"{MOLECULES / t:.1f}", f"{t / whole:.3f}"] for k, t in best.items()],
        ),
        "",
    ]
    (Path(__file__).parent / "engine.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
