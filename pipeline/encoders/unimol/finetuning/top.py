"""Uni-Mol above a cut, for training: the plain model's layers, with dropout.

Shapes and parameter names are those of `pipeline.encoders.unimol.model`; `lengths` and batches
are planned as for the engine. Nothing below the cut is touched.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.encoders.unimol.model import Layer, UniMol


class Top(nn.Module):
    """The layers from `cut` on, and the final norm.

    Parameters
    ----------
    model : its layers below the cut are dropped.
    cut : the first layer that is kept.
    frozen : layers above the cut that stay in evaluation mode.
    dropout : after the embedding (if that is trained), on attention weights and on updates.
    from_tokens : take tokens and coordinates instead of the trunk's activations.
    """

    def __init__(
        self, model: UniMol, cut: int, frozen: frozenset[int], dropout: float, from_tokens: bool
    ):
        super().__init__()
        self.cut, self.frozen = cut, frozen
        self.dropout, self.from_tokens = dropout, from_tokens
        for layer in range(cut):
            model.encoder.layers[layer] = nn.Identity()
        self.model = model
        self.train(self.training)

    @property
    def width(self) -> int:
        """Length of a feature."""
        return self.model.config.width

    def train(self, mode: bool = True) -> Top:
        """Training mode, but for the frozen layers."""
        super().train(mode)
        for layer in self.frozen:
            self.model.encoder.layers[layer].eval()
        return self

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Features (B, D): of x (B, N, D) and pair (B, H, N, N) at the cut.

        With `from_tokens`, of tokens (B, N) and coords (B, N, 3).
        """
        x_BND, pair_BHNN = first, second
        if self.from_tokens:
            x_BND, pair_BHNN = self.model.embed(first, second)
            x_BND = F.dropout(x_BND, self.dropout, self.training)
            pair_BHNN = pair_BHNN.float()  # as the engine has it, also under autocast
        layers = self.model.encoder.layers[self.cut :]
        for number, layer in enumerate(layers, start=1):
            rows = 1 if number == len(layers) else None  # only [CLS] leaves the last layer
            dropout = self.dropout if layer.training else 0.0
            x_BND, pair_BHNN = layer_for_training(layer, x_BND, pair_BHNN, dropout, rows)
        return self.model.encoder.final_layer_norm(x_BND[:, 0])


def layer_for_training(
    layer: Layer, x_BND: Tensor, pair_BHNN: Tensor, dropout: float, rows: int | None = None
) -> tuple[Tensor, Tensor]:
    """The first `rows` rows of x and pair after a layer; None: all of them."""
    normed_BND = layer.self_attn_layer_norm(x_BND)
    attention = layer.self_attn
    B, N, D = x_BND.shape
    weight, bias = attention.in_proj.weight, attention.in_proj.bias
    q = F.linear(normed_BND[:, :rows], weight[:D], bias[:D])
    kv = F.linear(normed_BND, weight[D:], bias[D:])
    q_BHRK = q.view(B, -1, attention.heads, D // attention.heads).transpose(1, 2)
    k_BHNK, v_BHNK = kv.view(B, N, 2, attention.heads, -1).permute(2, 0, 3, 1, 4)
    scaled_BHRK = q_BHRK * (D // attention.heads) ** -0.5
    pair_BHRN = pair_BHNN[:, :, :rows] + scaled_BHRK @ k_BHNK.transpose(-1, -2)
    attended_BHRN = F.dropout(pair_BHRN.softmax(dim=-1), dropout).to(v_BHNK.dtype)
    mixed_BRD = (attended_BHRN @ v_BHNK).transpose(1, 2).reshape(B, -1, D)
    x_BRD = x_BND[:, :rows] + F.dropout(attention.out_proj(mixed_BRD), dropout)
    hidden = F.gelu(layer.fc1(layer.final_layer_norm(x_BRD)))
    return x_BRD + F.dropout(layer.fc2(hidden), dropout), pair_BHRN
