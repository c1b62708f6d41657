"""torch's optimisers without torch's compiler, whose import takes 2 s of every process that trains.

Optimisers import `torch._dynamo` at their first step, though nothing is compiled: to mark what it
shall leave alone. What these do is what torch's own do; where another version of torch keeps its
marks elsewhere, they import the compiler again.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import Optimizer


def without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """An optimiser's class, such as torch.optim.AdamW, that never imports torch's compiler.

    It cannot be differentiated through.
    """
    plain_step = inspect.unwrap(kind.step)  # around it: gradients off, and the compiler's marks

    class Lean(kind):
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            return plain_step(self, closure)

    for method in vars(Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dynamo_disable = plain  # torch._compile looks here before it imports
    return Lean


AdamW = without_compiler(torch.optim.AdamW)
Adam = without_compiler(torch.optim.Adam)
