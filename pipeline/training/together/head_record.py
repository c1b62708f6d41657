"""One head's course among those that it trains with."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from pipeline.detectors.heads.domain_weights import DomainWeights
from pipeline.training.settings import TrainSettings

PROGRESS = (
    "epoch", "stale", "best_epoch", "best_auroc", "train_seconds", "eval_seconds", "history",
    "failure",
)  # fmt: skip
"""What of a record a checkpoint keeps as it is."""


@dataclass
class HeadRecord:
    """One head's course; `best` are its tensors at `best_epoch`, `failure` what ended it."""

    settings: TrainSettings
    best: dict[str, Tensor]
    domain_weights: tuple[DomainWeights, ...] = ()
    epoch: int = 0
    stale: int = 0
    best_epoch: int = 0
    best_auroc: float = -1.0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    failure: str | None = None

    @property
    def finished(self) -> bool:
        """As `TrainingState.finished`, or it has failed."""
        done = self.epoch >= self.settings.epochs
        waited = self.stale >= self.settings.early_stopping_patience
        return done or waited or self.failure is not None
