"""Settings of jobs.compare."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.runtime.settings import bounded
from pipeline.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class CompareSettings(TrainSettings):
    """Train with the encoder frozen and finetuned, over several seeds, and compare the two."""

    seeds: list[int] = field(default_factory=lambda: [42, 43, 44])
    """Seeds; each makes one run of either kind, and --seed is left out."""
    parallel_runs: int | None = bounded(None, least=1)
    """Runs at a time; default: as many as the cluster has GPUs for, or one for four cores. Frozen
    runs whose heads train together count as one."""
    bootstrap_samples: int = bounded(1000, least=100)
    """Resamples behind the 95-percent intervals."""
