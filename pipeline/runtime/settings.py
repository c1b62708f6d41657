"""What all settings share: bounds of numbers, checked when they are made."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.runtime.errors import InputError


def bounded(
    default: Any, *, above: float | None = None, least: float | None = None,
    below: float | None = None,
) -> Any:  # fmt: skip
    """A numeric field that must be > above, >= least and < below."""
    return field(default=default, metadata={"above": above, "least": least, "below": below})


def at_home(value: Any) -> Any:
    """A path that starts with `~` or `~user` below that home folder; other values as they are.

    Shells leave it as it is in `--output_dir=~/results`, and YAML always does.
    """
    if isinstance(value, list):
        return [at_home(each) for each in value]
    is_path = isinstance(value, str) and (value == "~" or re.match(r"~[^/]*/", value))
    return os.path.expanduser(value) if is_path else value


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: as they are made, `~` becomes the home folder; checks bounds."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = at_home(getattr(self, f.name))
            object.__setattr__(self, f.name, value)  # the class is frozen
            if value is None or not f.metadata:
                continue
            above, least, below = (f.metadata[k] for k in ("above", "least", "below"))
            if above is not None and not value > above:
                raise InputError(f"--{f.name} must be above {above:g}, got {value:g}")
            if least is not None and not value >= least:
                raise InputError(f"--{f.name} must be at least {least:g}, got {value:g}")
            if below is not None and not value < below:
                raise InputError(f"--{f.name} must be below {below:g}, got {value:g}")


@dataclass(frozen=True, kw_only=True)
class OutputSettings(Settings):
    """Where a command writes its results."""

    output_dir: str = "outputs"
    """Folder or fsspec URI for results."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Settings):
    """How a training updates parameters."""

    lr: float = bounded(1e-4, above=0)
    """Learning rate of the head (AdamW)."""
    weight_decay: float = bounded(1e-3, least=0)
    """Weight decay (AdamW)."""
    grad_clip: float = bounded(1.0, above=0)
    """Largest norm of the gradient."""
