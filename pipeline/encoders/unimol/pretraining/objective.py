"""Uni-Mol with the heads of its pretraining, and its losses.

The encoder is the plain one of `pipeline.encoders.unimol.model`; names of the heads' parameters
are those of the published checkpoints, so that a state dict is such a checkpoint. The losses are
those of Uni-Mol (Zhou et al., ICLR 2023) as in `unimol_tools.pretrain`.

Shapes: as in the model; M masked atoms of a batch, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.encoders.unimol.finetuning.top import layer_for_training
from pipeline.encoders.unimol.model import (
    PI,
    STD_FLOOR,
    GaussianFeatures,
    UniMol,
    UniMolConfig,
    initialize,
)
from pipeline.encoders.unimol.pretraining.masking import MaskedBatch

# Of distances in Uni-Mol's own data, Å; the distances to tell are scaled by them.
DISTANCE_MEAN, DISTANCE_STD = 6.312581655060595, 3.3899264663911888
NORM_TOLERANCE = 1.0


class LossSums(NamedTuple):
    """Sums over a batch or a part of one, each with what its mean is taken over.

    Attributes
    ----------
    token, hits : cross entropy of the atom types to be told, and how many were; over `atoms`.
    coord : smooth L1 of their coordinates (Å); over 3 × `atoms`.
    distance : smooth L1 of their scaled distances to every token; over `distances`.
    x_norm, pair_norm : how far the norms of the last layer's atoms, and of what the layers added
        to its pairs, are from the expected by more than the tolerance; over `molecules`.
    """

    token: Tensor
    hits: Tensor
    coord: Tensor
    distance: Tensor
    x_norm: Tensor
    pair_norm: Tensor
    atoms: Tensor
    distances: Tensor
    molecules: Tensor


class LossWeights(NamedTuple):
    """What each mean counts in the loss; the defaults are Uni-Mol's."""

    token: float = 1.0
    coord: float = 5.0
    distance: float = 10.0
    x_norm: float = 0.01
    pair_norm: float = 0.01


class TokenHead(nn.Module):
    """Atoms to logits of their types."""

    def __init__(self, width: int, vocabulary: int):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width)
        self.weight = nn.Parameter(torch.empty(vocabulary, width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x_MD: Tensor) -> Tensor:
        """(M, V)."""
        return F.linear(self.layer_norm(F.gelu(self.dense(x_MD))), self.weight, self.bias)


class CoordHead(nn.Module):
    """Pairs to how much one atom pulls the other."""

    def __init__(self, heads: int):
        super().__init__()
        self.linear1 = nn.Linear(heads, heads)
        self.linear2 = nn.Linear(heads, 1)

    def forward(self, pair: Tensor) -> Tensor:
        """(..., H) to (..., 1)."""
        return self.linear2(F.gelu(self.linear1(pair)))


class DistanceHead(nn.Module):
    """Pairs to one side of their distance."""

    def __init__(self, heads: int):
        super().__init__()
        self.dense = nn.Linear(heads, heads)
        self.layer_norm = nn.LayerNorm(heads)
        self.out_proj = nn.Linear(heads, 1)

    def forward(self, pair: Tensor) -> Tensor:
        """(..., H) to (...)."""
        return self.out_proj(self.layer_norm(F.gelu(self.dense(pair)))).squeeze(-1)


class _Gaussians(torch.autograd.Function):
    """`GaussianFeatures` of scaled distances, with its gradient written out in fewer passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, means_G: Tensor, stds_G: Tensor, dtype: torch.dtype) -> Tensor:
        slopes_G = 0.5**0.5 / stds_G
        heights_G = -((2 * PI) ** 0.5 * stds_G).log()
        z = torch.addcmul(-means_G * slopes_G, x.unsqueeze(-1), slopes_G)
        channels = torch.addcmul(heights_G, z, z, value=-1).exp_().to(dtype)
        ctx.save_for_backward(z, channels, slopes_G, stds_G)
        return channels

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, channels, slopes_G, stds_G = ctx.saved_tensors
        exponent = (gradient * channels).to(z.dtype)
        to_z = exponent * z
        to_x = to_z @ (-2 * slopes_G)
        pairs = tuple(range(z.dim() - 1))
        to_means_G = 2 * slopes_G * to_z.sum(pairs)
        to_stds_G = (2 * to_z.mul_(z).sum(pairs) - exponent.sum(pairs)) / stds_G
        return to_x, to_means_G, to_stds_G, None


class TrainedGaussians(GaussianFeatures):
    """The Gaussian channels with a gradient of their own; under autocast in its precision."""

    def forward(self, distance_BNN: Tensor, edge_type_BNN: Tensor) -> Tensor:
        """(B, N, N) distances in Å and edge types to (B, N, N, G)."""
        scale, shift = (table(edge_type_BNN).squeeze(-1) for table in (self.mul, self.bias))
        x = scale * distance_BNN + shift
        device = distance_BNN.device.type
        lower = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if lower else x.dtype
        stds_G = self.stds.weight.view(-1).abs() + STD_FLOOR
        return _Gaussians.apply(x, self.means.weight.view(-1), stds_G, dtype)


class PretrainingUniMol(UniMol):
    """Uni-Mol with the three heads of its pretraining.

    Parameters
    ----------
    dropout : after the embedding, on attention weights and on updates.
    """

    def __init__(self, config: UniMolConfig, pad: int, dropout: float = 0.1):
        super().__init__(config, pad)
        self.dropout = dropout
        self.gbf = TrainedGaussians(config)
        self.encoder.final_head_layer_norm = nn.LayerNorm(config.heads)
        self.lm_head = TokenHead(config.width, config.vocabulary)
        self.pair2coord_proj = CoordHead(config.heads)
        self.dist_head = DistanceHead(config.heads)

    def forward(self, batch: MaskedBatch) -> LossSums:
        """Losses of a batch, each as a sum."""
        padded_BN = ~batch.real
        x_BND, first_BHNN = self.embed(batch.tokens, batch.coords)
        first_BHNN = first_BHNN.float()  # under autocast too
        dropout = self.dropout if self.training else 0.0
        x_BND, pair_BHNN = F.dropout(x_BND, dropout), first_BHNN
        for layer in self.encoder.layers:
            x_BND, pair_BHNN = layer_for_training(layer, x_BND, pair_BHNN, dropout)
        # Only rows and columns of masked atoms are asked for their distances and coordinates.
        nothing_B1N1 = padded_BN[:, None, None, :]
        added_BHNN = (pair_BHNN - first_BHNN).masked_fill(nothing_B1N1, 0.0)
        molecule, atom = batch.masked.nonzero(as_tuple=True)
        real_MN = batch.real[molecule]
        token_sum, hits = self._tokens(x_BND[molecule, atom], batch.true_tokens[molecule, atom])
        moved_M3 = self._moved(
            added_BHNN[molecule, :, atom].transpose(1, 2), batch.coords, molecule, atom, real_MN
        )
        true_M3 = batch.true_coords[molecule, atom]
        x_norm_B = _masked_mean(_norm_error(x_BND, -1), batch.real)
        pairs_BNN = batch.real[:, :, None] & batch.real[:, None, :]
        pair_norm_B = _masked_mean(_norm_error(added_BHNN, 1).flatten(1), pairs_BNN.flatten(1))
        told_MN = self._distances(pair_BHNN.masked_fill(nothing_B1N1, 0.0), molecule, atom)
        true_MN = (batch.true_coords[molecule] - true_M3[:, None]).norm(dim=-1)
        wrong_MN = F.smooth_l1_loss(
            told_MN.float(), (true_MN - DISTANCE_MEAN) / DISTANCE_STD, reduction="none"
        )
        return LossSums(
            token=token_sum,
            hits=hits,
            coord=F.smooth_l1_loss(moved_M3, true_M3, reduction="sum"),
            distance=wrong_MN.masked_fill(~real_MN, 0.0).sum(),
            x_norm=x_norm_B.sum(),
            pair_norm=pair_norm_B.sum(),
            atoms=batch.masked.sum(),
            distances=real_MN.sum(),
            molecules=torch.tensor(len(padded_BN), device=padded_BN.device),
        )

    def _tokens(self, x_MD: Tensor, true_M: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy and number of right answers."""
        logits_MV = self.lm_head(self.encoder.final_layer_norm(x_MD)).float()
        hits = logits_MV.argmax(dim=-1).eq(true_M).sum()
        return F.cross_entropy(logits_MV, true_M, reduction="sum"), hits

    def _moved(
        self, added_MNH: Tensor, coords_BN3: Tensor, molecule: Tensor, atom: Tensor, real_MN: Tensor
    ) -> Tensor:
        """Coordinates (M, 3) told for masked atoms: where they were seen, and a pull by each."""
        pull_MN1 = self.pair2coord_proj(self.encoder.final_head_layer_norm(added_MNH)).float()
        place_M3 = coords_BN3[molecule, atom]
        away_MN3 = (coords_BN3[molecule] - place_M3[:, None]) * real_MN[:, :, None]
        return place_M3 + (away_MN3 * pull_MN1).sum(dim=1) / real_MN.sum(dim=1, keepdim=True)

    def _distances(self, pair_BHNN: Tensor, molecule: Tensor, atom: Tensor) -> Tensor:
        """Scaled distances (M, N) told, the mean of both directions."""
        sides = pair_BHNN[molecule, :, atom], pair_BHNN[molecule, :, :, atom]
        return sum(self.dist_head(side_MHN.transpose(1, 2)) for side_MHN in sides) / 2


def start(model: PretrainingUniMol, seed: int) -> PretrainingUniMol:
    """Fill a model with the seeded random weights that pretraining starts from."""
    initialize(model, seed)
    bound = model.config.width**-0.5  # torch's own for a linear layer, which the reference has
    model.lm_head.weight.data.uniform_(
        -bound, bound, generator=torch.Generator().manual_seed(seed + 1)
    )
    return model


def mean_losses(sums: LossSums) -> dict[str, Tensor]:
    """Each loss as a mean, by its name; and `accuracy`, the share of atom types told."""
    atoms = sums.atoms.clamp(min=1)
    return {
        "token": sums.token / atoms,
        "coord": sums.coord / (3 * atoms),
        "distance": sums.distance / sums.distances.clamp(min=1),
        "x_norm": sums.x_norm / sums.molecules,
        "pair_norm": sums.pair_norm / sums.molecules,
        "accuracy": sums.hits / atoms,
    }


def total_loss(means: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """What is minimised."""
    return sum(weight * means[name] for name, weight in weights._asdict().items())


def _norm_error(x: Tensor, dim: int) -> Tensor:
    """How far norms along a dimension are from its √size, beyond the tolerance."""
    norm = (x.float().square().sum(dim=dim) + 1e-10).sqrt()
    return F.relu((norm - x.shape[dim] ** 0.5).abs() - NORM_TOLERANCE)


def _masked_mean(values_BK: Tensor, mask_BK: Tensor) -> Tensor:
    """Means (B,) where the mask is true."""
    return (values_BK * mask_BK).sum(dim=1) / mask_BK.sum(dim=1)
