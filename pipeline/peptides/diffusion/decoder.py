"""From latents of residues to the residues, though the latents are not quite right.

What a diffusion model draws lies beside the latents of any real peptide, so the decoder learns from
noisy ones. It sees two neighbours on each side: an ESM-2 latent tells of them too.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, silu

from pipeline.molecules.sequences import STANDARD

NEIGHBOURS = 2  # on each side
WIDTH = 256
LEVELS = (0.0, 0.1, 0.25, 0.5, 1.0)  # deviations of noise at which it is judged


class Decoder(nn.Module):
    """A convolution over neighbouring residues, and a layer for each one alone.

    Parameters
    ----------
    columns : of a latent.
    """

    def __init__(self, columns: int, width: int = WIDTH):
        super().__init__()
        self.norm = nn.LayerNorm(columns)
        self.own = nn.Linear(columns, width)
        self.beside = nn.Conv1d(columns, width, 2 * NEIGHBOURS + 1, padding=NEIGHBOURS)
        self.told = nn.Linear(width, len(STANDARD))

    def forward(self, latents_BNC: Tensor, real_BN: Tensor) -> Tensor:
        """Logits (B, N, 20) in the order of STANDARD, of latents and which places are residues."""
        x_BNC = self.norm(latents_BNC) * real_BN[..., None]
        beside_BND = self.beside(x_BNC.transpose(1, 2)).transpose(1, 2)
        return self.told(silu(self.own(x_BNC) + beside_BND))


class Decoded(NamedTuple):
    """Sequences, and the mean probability of their residues (n,) float32."""

    sequences: list[str]
    confidence: Tensor


def decoding_loss(
    decoder: Decoder, latents_BNC: Tensor, tokens_BN: Tensor, real_BN: Tensor, noise_BNC: Tensor
) -> Tensor:
    """The sum of the cross-entropies of all real residues, told from noisy latents.

    Parameters
    ----------
    tokens_BN : int64, places of the residues in STANDARD.
    noise_BNC : what is added to the latents.
    """
    logits_BN20 = decoder(latents_BNC + noise_BNC, real_BN).float()
    entropies = cross_entropy(logits_BN20.flatten(0, 1), tokens_BN.flatten(), reduction="none")
    return (entropies * real_BN.flatten()).sum()


def decoded(decoder: Decoder, latents_BNC: Tensor, real_BN: Tensor) -> Decoded:
    """The likeliest residue at each place."""
    most, tokens = decoder(latents_BNC, real_BN).float().softmax(dim=-1).max(dim=-1)
    lengths = real_BN.sum(dim=1)
    texts = [
        "".join(STANDARD[token] for token in row[:length])
        for row, length in zip(tokens.tolist(), lengths.tolist())
    ]
    return Decoded(texts, ((most * real_BN).sum(dim=1) / lengths).cpu())


def right_count(decoder: Decoder, latents_BNC: Tensor, tokens_BN: Tensor, real_BN: Tensor) -> int:
    """Residues that are told right."""
    told_BN = decoder(latents_BNC, real_BN).argmax(dim=-1)
    return int((told_BN.eq(tokens_BN) & real_BN).sum())
