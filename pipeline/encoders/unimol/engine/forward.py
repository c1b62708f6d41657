"""Uni-Mol's forward pass, fast: what the plain model computes, with less memory traffic.

Against `model.UniMol`, which the tests compare it with:

- the pair tensor is one buffer that every layer updates in place;
- the scale of the queries and the height of the Gaussians are folded into weights;
- what enters layer 0 depends on the token alone, so its projections are a table lookup;
- the last layer computes the [CLS] row only;
- products, attention, Gaussians and norms are a device's own kernels (`Kernels`).

`bench/engine.md` has what each gave. Shapes are named as in `pipeline.encoders.unimol.model`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from pipeline.encoders.unimol.engine.kernels import Kernels
from pipeline.encoders.unimol.model import PI, STD_FLOOR, Layer, UniMol


class _Layer:
    """A layer's weights as products; the [CLS] row alone if it is the last layer."""

    def __init__(self, layer: Layer, kernels: Kernels, last: bool):
        attention = layer.self_attn
        self.kernels, self.heads = kernels, attention.heads
        self.attention_norm, self.ffn_norm = layer.self_attn_layer_norm, layer.final_layer_norm
        D = attention.out_proj.weight.shape[0]
        weight, bias = attention.in_proj.weight.clone(), attention.in_proj.bias.clone()
        weight[:D] *= (D // self.heads) ** -0.5
        bias[:D] *= (D // self.heads) ** -0.5
        if last:
            self.query = kernels.product(weight[:D], bias[:D])
            self.keys_values = kernels.product(weight[D:], bias[D:])
        else:
            self.qkv = kernels.product(weight, bias)
        self.out = kernels.product(attention.out_proj.weight, attention.out_proj.bias)
        self.fc1 = kernels.product(layer.fc1.weight, layer.fc1.bias, gelu=True)
        self.fc2 = kernels.product(layer.fc2.weight, layer.fc2.bias)

    def feed_forward(self, x_BND: Tensor, attended_BND: Tensor) -> Tensor:
        """Add the attention's update to x; the update of the rest of the layer."""
        update_BND = self.out(attended_BND)
        return self.fc2(self.fc1(self.kernels.norm(x_BND, update_BND, self.ffn_norm)))

    def attend_cls(self, normed_BND: Tensor, pair_BHNN: Tensor) -> Tensor:
        """Attention of the [CLS] query, (B, 1, D)."""
        B, N, D = normed_BND.shape
        q_BHK1 = self.query(normed_BND[:, 0]).view(B, self.heads, -1, 1)
        k_BNHK, v_BNHK = self.keys_values(normed_BND).view(B, N, 2, self.heads, -1).unbind(2)
        logits_BHN = (k_BNHK.transpose(1, 2).float() @ q_BHK1.float()).squeeze(-1)
        weights_BH1N = (pair_BHNN[:, :, 0] + logits_BHN).softmax(-1).unsqueeze(2)
        return (weights_BH1N.to(v_BNHK.dtype) @ v_BNHK.transpose(1, 2)).view(B, 1, D)


class Engine:
    """The forward pass of one model on one device.

    Parameters
    ----------
    model : on the device; not needed afterwards.
    kernels : the device's.
    """

    def __init__(self, model: UniMol, kernels: Kernels):
        self.kernels, self.pad = kernels, model.pad
        self.vocabulary, self.heads = model.config.vocabulary, model.config.heads
        layers = model.encoder.layers
        *self.layers, self.last = (_Layer(one, kernels, one is layers[-1]) for one in layers)
        self.final_norm = model.encoder.final_layer_norm
        self.embedding = model.encoder.emb_layer_norm(model.embed_tokens.weight)
        self.embedding[self.pad] = 0.0
        if self.layers:
            first = self.layers[0]
            self.first_qkv = first.qkv(kernels.norm(self.embedding, None, first.attention_norm))

        gbf, projection = model.gbf, model.gbf_proj
        std = gbf.stds.weight.view(-1).abs() + STD_FLOOR
        self.means, self.exponents = gbf.means.weight.view(-1), -0.5 / (std * std)
        self.scale, self.shift = gbf.mul.weight.view(-1), gbf.bias.weight.view(-1)
        height = 1 / ((2 * PI) ** 0.5 * std)
        linear1, linear2 = projection.linear1, projection.linear2
        self.channels = kernels.product(linear1.weight * height, linear1.bias, gelu=True)
        self.to_heads = linear2.weight.to(kernels.dtype)
        self.head_bias = linear2.bias.view(-1, 1)

    @torch.inference_mode()
    def __call__(self, tokens_BN: Tensor, coords_BN3: Tensor) -> Tensor:
        """Features (B, D) float32: the [CLS] row after the final layer norm."""
        x_BND, pair_BHNN = self.embedding[tokens_BN], self.pairs(tokens_BN, coords_BN3)
        return self._finish(tokens_BN, x_BND, pair_BHNN, start=0)

    @torch.inference_mode()
    def with_trunk(
        self, tokens_BN: Tensor, coords_BN3: Tensor, cut: int, pair_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features, and what enters layer `cut`: x (B, N, D) float32 and pair (B, H, N, N)."""
        x_BND, pair_BHNN = self._to_cut(tokens_BN, coords_BN3, cut)
        trunk = x_BND.clone(), pair_BHNN.to(pair_dtype, copy=True)
        return self._finish(tokens_BN, x_BND, pair_BHNN, start=cut), *trunk

    @torch.no_grad()  # not inference_mode: what it returns enters layers that are trained
    def trunk(self, tokens_BN: Tensor, coords_BN3: Tensor, cut: int) -> tuple[Tensor, Tensor]:
        """What enters layer `cut`: x (B, N, D) float32 and pair (B, H, N, N)."""
        return self._to_cut(tokens_BN, coords_BN3, cut)

    def _to_cut(self, tokens_BN: Tensor, coords_BN3: Tensor, cut: int) -> tuple[Tensor, Tensor]:
        x_BND, pair_BHNN = self.embedding[tokens_BN], self.pairs(tokens_BN, coords_BN3)
        update_BND = self._layers(tokens_BN, x_BND, pair_BHNN, range(cut))
        if update_BND is not None:
            x_BND += update_BND
        return x_BND, pair_BHNN

    def _layers(
        self, tokens_BN: Tensor, x_BND: Tensor, pair_BHNN: Tensor, numbers: range
    ) -> Tensor | None:
        """Run layers over x and pair in place; the last one's update of x, still to be added."""
        update_BND = None
        for number in numbers:
            layer = self.layers[number]
            if number == 0:
                qkv = self.first_qkv[tokens_BN]
            else:
                qkv = layer.qkv(self.kernels.norm(x_BND, update_BND, layer.attention_norm))
            update_BND = layer.feed_forward(x_BND, self.kernels.attend(qkv, pair_BHNN))
        return update_BND

    def _finish(self, tokens_BN: Tensor, x_BND: Tensor, pair_BHNN: Tensor, start: int) -> Tensor:
        """Features (B, D) of what enters layer `start`."""
        numbers = range(start, len(self.layers))
        update_BND = self._layers(tokens_BN, x_BND, pair_BHNN, numbers)
        last = self.last
        normed_BND = self.kernels.norm(x_BND, update_BND, last.attention_norm)
        x_B1D = x_BND[:, :1].contiguous()
        x_B1D += last.feed_forward(x_B1D, last.attend_cls(normed_BND, pair_BHNN))
        return self.final_norm(x_B1D[:, 0])

    def pairs(self, tokens_BN: Tensor, coords_BN3: Tensor) -> Tensor:
        """What enters layer 0: the attention bias (B, H, N, N), −inf at padded keys."""
        B, N = tokens_BN.shape
        pair_BHP = torch.empty(
            (B, self.heads, N * N), dtype=self.kernels.pair_dtype, device=tokens_BN.device
        )
        step = max(1, self.kernels.gaussian_rows // (N * N))
        for start in range(0, B, step):
            tokens, coords = tokens_BN[start : start + step], coords_BN3[start : start + step]
            edges = tokens.unsqueeze(-1) * self.vocabulary + tokens.unsqueeze(1)
            distance = torch.cdist(coords, coords, compute_mode="donot_use_mm_for_euclid_dist")
            channels = self.kernels.gaussians(
                self.scale[edges], self.shift[edges], distance, self.means, self.exponents
            )
            hidden = self.channels(channels.view(len(tokens), N * N, -1))
            some = pair_BHP[start : start + step]
            torch.add(self.to_heads @ hidden.transpose(1, 2), self.head_bias, out=some)
        pair_BHNN = pair_BHP.view(B, self.heads, N, N)
        return pair_BHNN.masked_fill_(tokens_BN.eq(self.pad)[:, None, None], float("-inf"))


def on(device: torch.device) -> AbstractContextManager:
    """Make a GPU the current one, on which Triton starts its kernels."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def build_engine(model: UniMol, dtype: torch.dtype, device: torch.device) -> Engine:
    """A model's engine on a device, its matrix products in a dtype.

    Raises
    ------
    ModuleNotFoundError
        If the device is a GPU and Triton, which comes with torch's CUDA builds, is missing.
    """
    if device.type == "cuda":
        from pipeline.encoders.unimol.engine.cuda import CudaKernels as DeviceKernels
    else:
        from pipeline.encoders.unimol.engine.cpu import CpuKernels as DeviceKernels
    with torch.inference_mode(), on(device):
        return Engine(model.to(device), DeviceKernels(dtype, model.config.heads))
