"""Low-rank updates of a Uni-Mol's matrices (LoRA, arXiv:2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.encoders.unimol.model import UniMol


@dataclass(frozen=True)
class Adapters:
    """Low-rank updates of linear modules, by the modules' names."""

    modules: tuple[str, ...]
    rank: int
    alpha: float


class LowRankUpdate(nn.Module):
    """W + (alpha / rank) B·A, with A random and B zero at the start.

    Parameters
    ----------
    weight : (out, in), the matrix that is updated.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float):
        super().__init__()
        out_width, in_width = weight.shape
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, in_width))
        self.up = nn.Parameter(torch.zeros(out_width, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The updated matrix (out, in)."""
        return weight + self.scale * (self.up @ self.down)


def add_adapters(model: UniMol, adapters: Adapters) -> None:
    """Put a low-rank update on each module's weight, which itself no longer trains."""
    for name in adapters.modules:
        module = model.get_submodule(name)
        update = LowRankUpdate(module.weight, adapters.rank, adapters.alpha)
        parametrize.register_parametrization(module, "weight", update)


def merge_adapters(model: UniMol, adapters: Adapters) -> None:
    """Replace each adapted weight by its updated value."""
    for name in adapters.modules:
        parametrize.remove_parametrizations(model.get_submodule(name), "weight")
