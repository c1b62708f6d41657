"""A training in the test's process that Ctrl-C stops after a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from pipeline.runtime.train import ray_train


@contextmanager
def stopped_at_a_checkpoint(loop: ModuleType, number: int = 1) -> Iterator[None]:
    """What is trained within must be stopped.

    Parameters
    ----------
    loop : the module of the training's loop, which reports its checkpoints.
    number : of the checkpoint, from 1 on.
    """
    left = number

    def report_and_stop(metrics: dict[str, Any], state: Any) -> None:
        nonlocal left
        ray_train.report(metrics, state)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "report", report_and_stop)
        with pytest.raises(KeyboardInterrupt):
            yield
