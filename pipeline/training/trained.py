"""What comes of a training, before it is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.encoders.unimol.finetuning.finetuned import FinetunedEncoder


@dataclass(frozen=True)
class Trained:
    """A detector that was trained or fitted.

    Attributes
    ----------
    files : of the detector, for its checkpoint.
    config : what its checkpoint's config.json has of it: `detector`, and `head` for a head.
    history : one dict an epoch; empty for a detector without epochs.
    best_val_auroc : on validation molecules.
    stats : what training_stats.json says of the training.
    finetuned : what came of the encoder, if it was finetuned.
    leftovers : folders to remove once all is written.
    """

    files: dict[str, bytes]
    config: dict[str, Any]
    history: list[dict[str, float]]
    best_val_auroc: float
    stats: dict[str, Any]
    finetuned: FinetunedEncoder | None = None
    leftovers: tuple[str, ...] = ()

    def beside(self, others: Iterable[Trained], **stats: Any) -> Trained:
        """With what others leave to remove too, and more to tell of the training."""
        left = [folder for other in others for folder in other.leftovers]
        leftovers = tuple(dict.fromkeys([*self.leftovers, *left]))
        return replace(self, stats={**self.stats, **stats}, leftovers=leftovers)
