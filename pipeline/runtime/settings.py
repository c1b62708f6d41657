"""What all settings share: bounds of numbers, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.runtime.errors import InputError


def bounded(
    default: Any, *, above: float | None = None, least: float | None = None,
    below: float | None = None,
) -> Any:  # fmt: skip
    """A numeric field that must be > above, >= least and < below."""
    return field(default=default, metadata={"above": above, "least": least, "below": below})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: checks the bounds of its fields when it is made."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
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
