"""The network: noisy latents of residues, step, class and structure → velocity or noise.

B batch, N residues, D width, C columns of a latent, S columns of a structure, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from pipeline.generation.diffusion.denoiser import sinusoids
from pipeline.peptides.diffusion.decoder import Decoder
from pipeline.peptides.settings import PeptideGeneratorSettings

WIDER = 4  # a feed-forward part, than the rest


class Attention(nn.Module):
    """Residues attend to others of their peptide, or to what is given."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.asked = nn.Linear(width, width)
        self.given = nn.Linear(width, 2 * width)
        self.outward = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, given_BMD: Tensor, seen_BM: Tensor) -> Tensor:
        """Of residues, what they attend to, and which of that there is (bool)."""
        parts = (self.asked(x_BND), *self.given(given_BMD).chunk(2, dim=-1))
        q_BHNK, k_BHMK, v_BHMK = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts
        )
        mixed_BHNK = scaled_dot_product_attention(
            q_BHNK, k_BHMK, v_BHMK, attn_mask=seen_BM[:, None, None]
        )
        return self.outward(mixed_BHNK.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Self-attention, attention to the structure, feed-forward; step and class scale and gate each.

    The gates are adaLN-Zero's (Peebles and Xie, DiT, 2023): a block begins as the identity.
    """

    def __init__(self, width: int, heads: int, has_structures: bool):
        super().__init__()
        self.attention = Attention(width, heads)
        self.to_structure = Attention(width, heads) if has_structures else None
        self.up, self.down = nn.Linear(width, WIDER * width), nn.Linear(WIDER * width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.parts = 3 if has_structures else 2
        self.modulation = nn.Linear(width, 3 * self.parts * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x_BND: Tensor, real_BN: Tensor, context_BD: Tensor,
        structure_BMD: Tensor | None, seen_BM: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Of residues, which of them are real, step and class, and tokens of the structure."""
        modulation = self.modulation(silu(context_BD))[:, None].chunk(3 * self.parts, dim=-1)
        shifts, scales, gates = (modulation[i::3] for i in range(3))

        def normed(part: int) -> Tensor:
            return self.norm(x_BND) * (1 + scales[part]) + shifts[part]

        own_BND = normed(0)
        x_BND = x_BND + gates[0] * self.attention(own_BND, own_BND, real_BN)
        x_BND = x_BND + gates[1] * self.down(silu(self.up(normed(1))))
        if self.to_structure is not None:
            x_BND = x_BND + gates[2] * self.to_structure(normed(2), structure_BMD, seen_BM)
        return x_BND


class PeptideDenoiser(nn.Module):
    """A transformer over the residues of a peptide.

    A residue knows its place from both ends. What attends to structures always finds a learned
    token for "none" beside them, so a hidden structure and a missing one are the same.

    Parameters
    ----------
    columns : of a latent.
    classes : their number; class `classes` means any.
    structure_columns : of a residue's structure; 0 for a model without structures.
    """

    def __init__(
        self, columns: int, classes: int, width: int, blocks: int, heads: int,
        structure_columns: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.width = width
        self.inward = nn.Linear(2 * columns, width)
        self.places = nn.Linear(width, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(classes + 1, width)
        self.structure = nn.Linear(structure_columns, width) if structure_columns else None
        self.no_structure = nn.Parameter(torch.zeros(width)) if structure_columns else None
        self.blocks = nn.ModuleList(
            Block(width, heads, bool(structure_columns)) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, columns)
        nn.init.zeros_(self.outward.weight)  # training starts from "predict zero"
        nn.init.zeros_(self.outward.bias)

    @property
    def any_class(self) -> int:
        """The class of a peptide whose class is hidden."""
        return self.classes.num_embeddings - 1

    def forward(
        self, noisy_BNC: Tensor, guess_BNC: Tensor, real_BN: Tensor, steps_B: Tensor,
        classes_B: Tensor, structure_BNS: Tensor | None = None,
        has_structure_B: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """What is told of noisy latents (B, N, C).

        Parameters
        ----------
        guess_BNC : the latents as this model guessed them before; zeros for none.
        real_BN : bool, which places are residues; the rest is padding.
        structure_BNS, has_structure_B : what is known of the residues' structure, and of which
            peptides anything is; None for none.
        """
        time_BD = self.time(sinusoids(steps_B, self.width).to(self.time[0].weight.dtype))
        context_BD = time_BD + self.classes(classes_B)
        places_BND = self.places(self._places(real_BN).to(self.places.weight.dtype))
        x_BND = self.inward(torch.cat([noisy_BNC, guess_BNC], dim=-1)) + places_BND
        tokens_BMD, seen_BM = self._structure(places_BND, real_BN, structure_BNS, has_structure_B)
        for block in self.blocks:
            x_BND = block(x_BND, real_BN, context_BD, tokens_BMD, seen_BM)
        return self.outward(self.norm(x_BND))

    def _places(self, real_BN: Tensor) -> Tensor:
        """Sines of each place from the first residue and from the last (B, N, D)."""
        place_BN = torch.arange(real_BN.shape[1], device=real_BN.device).expand(real_BN.shape)
        from_end_BN = real_BN.sum(dim=1, keepdim=True) - 1 - place_BN
        both = (sinusoids(each.flatten(), self.width // 2) for each in (place_BN, from_end_BN))
        return torch.cat(list(both), dim=-1).unflatten(0, real_BN.shape)

    def _structure(
        self, places_BND: Tensor, real_BN: Tensor, structure_BNS: Tensor | None,
        has_structure_B: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
        """Tokens of the structure with the one for none, and which of them are there."""
        if self.structure is None:
            return None, None
        none_B1D = self.no_structure.expand(len(real_BN), 1, -1).to(places_BND.dtype)
        always_B1 = real_BN.new_ones(len(real_BN), 1)
        if structure_BNS is None:
            return none_B1D, always_B1
        tokens_BND = self.structure(structure_BNS) + places_BND
        seen_BN = real_BN & has_structure_B[:, None]
        return torch.cat([none_B1D, tokens_BND], dim=1), torch.cat([always_B1, seen_BN], dim=1)


class PeptideModel(nn.Module):
    """The denoiser, and the decoder that learns beside it."""

    def __init__(
        self, columns: int, classes: int, structure_columns: int, settings: PeptideGeneratorSettings
    ):
        super().__init__()
        self.denoiser = PeptideDenoiser(
            columns, classes, settings.width, settings.blocks, settings.heads, structure_columns
        )
        self.decoder = Decoder(columns)

    @property
    def any_class(self) -> int:
        """The class of a peptide whose class is hidden."""
        return self.denoiser.any_class
