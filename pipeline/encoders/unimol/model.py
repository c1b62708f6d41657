"""Uni-Mol v1, the molecule model (Zhou et al., ICLR 2023), forward pass only.

Shapes: B molecules, N tokens (longest of the batch), D width, H heads, K head width,
Q queries, G Gaussian channels. Parameter names are those of the published checkpoints.

Matrix products run in the model's dtype (`UniMol.set_precision`); softmax, norms, the pair
representation and the residual stream stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PI = 3.14159  # the constant that the published model was trained with
STD_FLOOR = 1e-5


@dataclass(frozen=True)
class UniMolConfig:
    """Sizes of a Uni-Mol; the defaults are the published molecule model's."""

    layers: int = 15
    width: int = 512
    ffn_width: int = 2048
    heads: int = 64
    gaussians: int = 128
    vocabulary: int = 31


class Linear(nn.Linear):
    """A linear layer whose product runs in the dtype of its weight and returns float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Product and bias in float32."""
        return super().forward(x.to(self.weight.dtype)).float()


class GaussianFeatures(nn.Module):
    """Distances as G Gaussian channels, after a scale and a shift per pair of atom types."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        edge_types = config.vocabulary**2
        self.means = nn.Embedding(1, config.gaussians)
        self.stds = nn.Embedding(1, config.gaussians)
        self.mul = nn.Embedding(edge_types, 1)
        self.bias = nn.Embedding(edge_types, 1)

    def forward(self, distance_BNN: Tensor, edge_type_BNN: Tensor) -> Tensor:
        """(B, N, N) distances in Å and edge types to (B, N, N, G)."""
        x = self.mul(edge_type_BNN) * distance_BNN.unsqueeze(-1) + self.bias(edge_type_BNN)
        std_G = self.stds.weight.view(-1).abs() + STD_FLOOR
        z_BNNG = (x - self.means.weight.view(-1)) / std_G
        return torch.exp(-0.5 * z_BNNG * z_BNNG) / ((2 * PI) ** 0.5 * std_G)


class PairProjection(nn.Module):
    """Gaussian channels to one attention bias a head."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        self.linear1 = Linear(config.gaussians, config.gaussians)
        self.linear2 = Linear(config.gaussians, config.heads)

    def forward(self, gaussians_BNNG: Tensor) -> Tensor:
        """(B, N, N, G) channels to a bias (B, H, N, N)."""
        bias_BNNH = self.linear2(F.gelu(self.linear1(gaussians_BNNG)))
        return bias_BNNH.permute(0, 3, 1, 2).contiguous()


class PairAttention(nn.Module):
    """Self-attention that adds its logits to the pair representation and passes it on."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        self.heads = config.heads
        self.in_proj = Linear(config.width, 3 * config.width)
        self.out_proj = Linear(config.width, config.width)

    def forward(self, x_BND: Tensor, pair_BHNN: Tensor) -> tuple[Tensor, Tensor]:
        """Update of x (B, N, D), and the pair representation with the logits added."""
        q_BHNK, k_BHNK, v_BHNK = self._heads(x_BND, self.in_proj.weight, self.in_proj.bias, 3)
        return self._attend(q_BHNK, k_BHNK, v_BHNK, pair_BHNN)

    def cls_only(self, x_BND: Tensor, pair_BHNN: Tensor) -> Tensor:
        """What `forward` gives for the [CLS] token, (B, 1, D), without the other queries."""
        D, weight, bias = x_BND.shape[-1], self.in_proj.weight, self.in_proj.bias
        (q_BH1K,) = self._heads(x_BND[:, :1], weight[:D], bias[:D], 1)
        k_BHNK, v_BHNK = self._heads(x_BND, weight[D:], bias[D:], 2)
        return self._attend(q_BH1K, k_BHNK, v_BHNK, pair_BHNN[:, :, :1])[0]

    def _heads(self, x_BND: Tensor, weight: Tensor, bias: Tensor, parts: int) -> Sequence[Tensor]:
        B, N, D = x_BND.shape
        packed = F.linear(x_BND.to(weight.dtype), weight, bias)
        return (
            packed.view(B, N, parts, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )

    def _attend(
        self, q_BHQK: Tensor, k_BHNK: Tensor, v_BHNK: Tensor, pair_BHQN: Tensor
    ) -> tuple[Tensor, Tensor]:
        B, H, Q, K = q_BHQK.shape
        pair_BHQN = pair_BHQN + (q_BHQK * K**-0.5) @ k_BHNK.transpose(-1, -2)
        weights_BHQN = pair_BHQN.softmax(dim=-1).to(v_BHNK.dtype)
        out_BQD = (weights_BHQN @ v_BHNK).transpose(1, 2).reshape(B, Q, H * K)
        return self.out_proj(out_BQD), pair_BHQN


class Layer(nn.Module):
    """One pre-norm transformer layer over tokens and pairs."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        self.self_attn = PairAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.fc1 = Linear(config.width, config.ffn_width)
        self.fc2 = Linear(config.ffn_width, config.width)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, x_BND: Tensor, pair_BHNN: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, N, D) and pair (B, H, N, N) after this layer."""
        update_BND, pair_BHNN = self.self_attn(self.self_attn_layer_norm(x_BND), pair_BHNN)
        return self._feed_forward(x_BND + update_BND), pair_BHNN

    def cls_only(self, x_BND: Tensor, pair_BHNN: Tensor) -> Tensor:
        """The [CLS] row (B, 1, D) of `forward`: all that the last layer has to give."""
        update_B1D = self.self_attn.cls_only(self.self_attn_layer_norm(x_BND), pair_BHNN)
        return self._feed_forward(x_BND[:, :1] + update_B1D)

    def _feed_forward(self, x_BND: Tensor) -> Tensor:
        return x_BND + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x_BND))))


class Transformer(nn.Module):
    """The stack of layers, between the norm of the embedding and the final norm."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        self.emb_layer_norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_layer_norm = nn.LayerNorm(config.width)


class UniMol(nn.Module):
    """Uni-Mol's encoder: tokens and coordinates in, one feature a molecule out."""

    def __init__(self, config: UniMolConfig, pad: int):
        super().__init__()
        self.config, self.pad = config, pad
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width, padding_idx=pad)
        self.gbf = GaussianFeatures(config)
        self.gbf_proj = PairProjection(config)
        self.encoder = Transformer(config)

    def set_precision(self, dtype: torch.dtype) -> UniMol:
        """Hold the weights of the matrix products in `dtype`; everything else in float32."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.to(dtype)
        return self

    def embed(self, tokens_BN: Tensor, coords_BN3: Tensor) -> tuple[Tensor, Tensor]:
        """What enters layer 0: x (B, N, D) and pair (B, H, N, N), −inf at padded keys."""
        padded_BN = tokens_BN.eq(self.pad)
        x_BND = self.encoder.emb_layer_norm(self.embed_tokens(tokens_BN))
        x_BND = x_BND.masked_fill(padded_BN.unsqueeze(-1), 0.0)
        distance_BNN = torch.cdist(
            coords_BN3, coords_BN3, compute_mode="donot_use_mm_for_euclid_dist"
        )
        edge_type_BNN = tokens_BN.unsqueeze(-1) * self.config.vocabulary + tokens_BN.unsqueeze(1)
        pair_BHNN = self.gbf_proj(self.gbf(distance_BNN, edge_type_BNN))
        return x_BND, pair_BHNN.masked_fill_(padded_BN[:, None, None, :], float("-inf"))

    def forward(self, tokens_BN: Tensor, coords_BN3: Tensor) -> Tensor:
        """Features (B, D) float32: the [CLS] row after the final layer norm."""
        x_BND, pair_BHNN = self.embed(tokens_BN, coords_BN3)
        *layers, last = self.encoder.layers
        for layer in layers:
            x_BND, pair_BHNN = layer(x_BND, pair_BHNN)
        return self.encoder.final_layer_norm(last.cls_only(x_BND, pair_BHNN)[:, 0])


def initialize(model: UniMol, seed: int) -> UniMol:
    """Fill a model with seeded random weights, as Uni-Mol's own pretraining starts.

    Weights are N(0, 0.02²), biases 0, norms the identity, the Gaussians uniform on [0, 3].
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.weight.normal_(0.0, 0.02, generator=generator)
            if isinstance(module, nn.Linear):
                module.bias.zero_()
        model.embed_tokens.weight[model.pad].zero_()
        model.gbf.means.weight.uniform_(0.0, 3.0, generator=generator)
        model.gbf.stds.weight.uniform_(0.0, 3.0, generator=generator)
        model.gbf.mul.weight.fill_(1.0)
        model.gbf.bias.weight.zero_()
    return model
