"""Energy heads of one shape side by side, whose products are computed together.

Shapes: H heads, n molecules, w width. Matrices are kept (H, in, out), as `torch.baddbmm` takes
them; on a CPU its numbers are those of each head's own `linear`. The last layer, a product with a
vector, has others there, and AdamW may make 1e-6 of them in ten steps: it goes head by head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.detectors.heads.energy_head import EnergyHead

Drop = Callable[[Tensor], Tensor]  # hidden values (H, n, width) to some of them, scaled

LAYERS = (0, 3, 6)  # the linear ones of `EnergyHead.layers`


class StackedHeads:
    """H energy heads; they take features that are standardised already.

    Attributes
    ----------
    parameters : six leaf tensors with a gradient, by the names that `EnergyHead` has for them:
        weights (H, in, out) and biases (H, 1, out).
    """

    def __init__(self, heads: Sequence[EnergyHead]):
        states = [head.state_dict() for head in heads]
        self.parameters = {
            name: stacked(name, [state[name] for state in states]).requires_grad_()
            for name in states[0]
        }

    def __call__(self, features: Tensor, drop: Drop | None = None) -> Tensor:
        """Energies (H, n) of features (H, n, w).

        Parameters
        ----------
        drop : dropout, applied to both hidden layers; None: there is none.
        """
        first, second, last = LAYERS
        hidden = features
        for layer in (first, second):
            hidden = F.relu(self._linear(layer, hidden))
            if drop is not None:
                hidden = drop(hidden)
        weights, biases = (tensor.unbind() for tensor in self._layer(last))
        each = zip(biases, hidden.unbind(), weights)
        return torch.stack([torch.addmm(*terms) for terms in each]).squeeze(-1)

    def _linear(self, layer: int, values: Tensor) -> Tensor:
        weight, bias = self._layer(layer)
        return torch.baddbmm(bias, values, weight)

    def _layer(self, number: int) -> tuple[Tensor, Tensor]:
        return tuple(self.parameters[f"layers.{number}.{kind}"] for kind in ("weight", "bias"))

    def head(self, number: int) -> dict[str, Tensor]:
        """A copy of one head's tensors, as `EnergyHead.load_state_dict` takes them."""
        return {name: unstacked(name, kept, number) for name, kept in self.parameters.items()}

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the heads."""
        self.parameters = {
            name: tensor.detach()[list(rows)].requires_grad_()
            for name, tensor in self.parameters.items()
        }


def stacked(name: str, tensors: Sequence[Tensor]) -> Tensor:
    """A parameter of H heads as `StackedHeads` keeps it, of those that `EnergyHead` has."""
    if name.endswith("weight"):
        return torch.stack([tensor.detach().T for tensor in tensors]).contiguous()
    return torch.stack([tensor.detach() for tensor in tensors])[:, None]


def unstacked(name: str, tensor: Tensor, number: int) -> Tensor:
    """The other way round, for one head: a copy."""
    one = tensor.detach()[number]
    return (one.T if name.endswith("weight") else one[0]).clone(
        memory_format=torch.contiguous_format
    )
