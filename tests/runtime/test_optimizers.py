"""torch's optimisers without its compiler: the same steps, and no import of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipeline.runtime.train.optimizers import Adam, AdamW


def trained(kind: type[torch.optim.Optimizer], **settings) -> torch.Tensor:
    """Weights after steps of a falling rate, with a state that was loaded half way."""
    torch.manual_seed(0)
    x, weight = torch.randn(50, 7), torch.nn.Parameter(torch.randn(7, 3))
    optimizer = kind([{"params": [weight], "lr": 0.05}], weight_decay=0.1, **settings)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    for _ in range(6):
        optimizer.zero_grad()
        (x @ weight).square().mean().backward()
        optimizer.step()
        falling.step()
        optimizer.load_state_dict(optimizer.state_dict())
    assert weight.requires_grad and torch.is_grad_enabled()
    return weight.detach()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("ours, theirs", [(AdamW, torch.optim.AdamW), (Adam, torch.optim.Adam)])
def test_steps_are_torchs(ours, theirs, fused):
    assert torch.equal(trained(ours, fused=fused), trained(theirs, fused=fused))


def test_a_step_does_not_import_the_compiler():
    code = """
import sys, torch
from pipeline.runtime.train.optimizers import AdamW
weight = torch.nn.Parameter(torch.ones(3))
optimizer = AdamW([weight])
weight.sum().backward()
optimizer.step()
assert weight[0] < 1
print("torch._dynamo" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["False"], run.stderr
