"""torch's optimisers without torch's compiler, whose import takes 2 s of every process that trains.

Optimisers import `torch._dynamo` at their first step, though nothing is compiled: to mark what it
shall leave alone. What these do is what torch's own do; where another version of torch keeps its
marks elsewhere, they import the compiler again.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


def without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """A class that does what an optimiser's does, without ever importing torch's compiler.

    It cannot be differentiated through, nor compiled. Only fused steps still import the compiler.

    Parameters
    ----------
    kind : such as torch.optim.AdamW, which stays as it is.
    """
    plain_step = inspect.unwrap(kind.step)  # around it: gradients off, and the compiler's marks

    @torch.no_grad()
    def step(self: Optimizer, closure: Any = None) -> Any:
        return plain_step(self, closure)

    marked = {
        name: method for name, method in vars(Optimizer).items()
        if inspect.isfunction(method) and hasattr(method, "__wrapped__")
    }  # fmt: skip
    methods = {name: inspect.unwrap(method) for name, method in marked.items()}
    return type(kind.__name__, (kind,), {**methods, "step": step})


AdamW = without_compiler(torch.optim.AdamW)
Adam = without_compiler(torch.optim.Adam)


def adamw_of(model: nn.Module, lr: float, weight_decay: float, **others: Any) -> Optimizer:
    """AdamW whose weight decay is that of matrices alone: not of biases, norms and scales."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=lr, **others)
