"""Uni-Mol v1, the molecule model (Zhou et al., ICLR 2023), forward pass only, written plainly.

This is the reference; `pipeline.encoders.unimol.engine` computes the same and is what runs.

Shapes: B molecules, N tokens (longest of the batch), D width, H heads, K head width,
G Gaussian channels. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

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
        self.linear1 = nn.Linear(config.gaussians, config.gaussians)
        self.linear2 = nn.Linear(config.gaussians, config.heads)

    def forward(self, gaussians_BNNG: Tensor) -> Tensor:
        """(B, N, N, G) channels to a bias (B, H, N, N)."""
        bias_BNNH = self.linear2(F.gelu(self.linear1(gaussians_BNNG)))
        return bias_BNNH.permute(0, 3, 1, 2).contiguous()


class PairAttention(nn.Module):
    """Self-attention that adds its logits to the pair representation and passes it on."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        self.heads = config.heads
        self.in_proj = nn.Linear(config.width, 3 * config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x_BND: Tensor, pair_BHNN: Tensor) -> tuple[Tensor, Tensor]:
        """Update of x (B, N, D), and the pair representation with the logits added."""
        B, N, D = x_BND.shape
        packed = self.in_proj(x_BND).view(B, N, 3, self.heads, D // self.heads)
        q_BHNK, k_BHNK, v_BHNK = packed.permute(2, 0, 3, 1, 4)
        scale = (D // self.heads) ** -0.5
        pair_BHNN = pair_BHNN + (q_BHNK * scale) @ k_BHNK.transpose(-1, -2)
        out_BND = (pair_BHNN.softmax(dim=-1) @ v_BHNK).transpose(1, 2).reshape(B, N, D)
        return self.out_proj(out_BND), pair_BHNN


class Layer(nn.Module):
    """One pre-norm transformer layer over tokens and pairs."""

    def __init__(self, config: UniMolConfig):
        super().__init__()
        self.self_attn = PairAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.ffn_width)
        self.fc2 = nn.Linear(config.ffn_width, config.width)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, x_BND: Tensor, pair_BHNN: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, N, D) and pair (B, H, N, N) after this layer."""
        update_BND, pair_BHNN = self.self_attn(self.self_attn_layer_norm(x_BND), pair_BHNN)
        x_BND = x_BND + update_BND
        return x_BND + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x_BND)))), pair_BHNN


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
        for layer in self.encoder.layers:
            x_BND, pair_BHNN = layer(x_BND, pair_BHNN)
        return self.encoder.final_layer_norm(x_BND[:, 0])


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
