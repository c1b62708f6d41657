"""AdamW for heads side by side, each with its own learning rate, weight decay and clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch.optim.AdamW's defaults


class StackedAdamW:
    """torch.optim.AdamW (Loshchilov and Hutter, 2019) over tensors (H, …), by head.

    torch's optimisers know one learning rate a tensor; here a row has one.

    Parameters
    ----------
    parameters : by name, (H, …) float32; they are changed in place.

    Attributes
    ----------
    mean, square : moving means of the gradients and of their squares, by name.
    steps : taken so far, the same for all heads.
    """

    def __init__(self, parameters: Mapping[str, Tensor]):
        self.steps = 0
        self.mean = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.square = {name: torch.zeros_like(p) for name, p in parameters.items()}

    @torch.no_grad()
    def step(
        self, parameters: Mapping[str, Tensor], rates: Sequence[float], decays: Sequence[float]
    ) -> None:
        """Step by the parameters' gradients.

        Parameters
        ----------
        rates, decays : H learning rates and weight decays.
        """
        self.steps += 1
        first, second = BETAS
        root = math.sqrt(1 - second**self.steps)
        shrink = [1 - rate * decay for rate, decay in zip(rates, decays)]
        move = [-rate / (1 - first**self.steps) for rate in rates]
        for name, parameter in parameters.items():
            gradient, mean, square = parameter.grad, self.mean[name], self.square[name]
            parameter.mul_(_by_head(shrink, parameter))
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            divisor = square.sqrt().div_(root).add_(EPSILON)
            parameter.add_(mean.mul(_by_head(move, mean)).div_(divisor))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the heads."""
        for kept in (self.mean, self.square):
            for name, tensor in kept.items():
                kept[name] = tensor[list(rows)]


@torch.no_grad()
def clip_gradients(parameters: Mapping[str, Tensor], largest: Sequence[float]) -> list[float]:
    """Scale each head's gradient to a largest norm of its own; the norms (H) before.

    As torch.nn.utils.clip_grad_norm_ for each head.
    """
    gradients = [parameter.grad for parameter in parameters.values()]
    norms = torch.stack([torch.linalg.vector_norm(g, dim=(1, 2)) for g in gradients])
    norm = torch.linalg.vector_norm(norms, dim=0)
    scale = (norm.new_tensor(largest) / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale[:, None, None])
    return norm.tolist()


def _by_head(values: Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(values)[:, None, None]
