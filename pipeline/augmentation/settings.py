"""Settings of jobs.augment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.augmentation.methods import METHODS, PLAIN
from pipeline.generation.settings import ClassedSourceSettings, GateSettings, GeneratorSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import OutputSettings, Settings, bounded
from pipeline.runtime.text import some


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(Settings):
    """The classifier of the rare class, the same for every method."""

    classifier: Literal["mlp", "logistic"] = "mlp"
    """An MLP of two hidden layers, or logistic regression, which is cheaper and has no seed."""
    classifier_width: int = bounded(128, least=1)
    """Width of the MLP's hidden layers."""
    classifier_dropout: float = bounded(0.2, least=0, below=1)
    """Share of hidden units that a training step of the MLP drops."""
    classifier_lr: float = bounded(1e-3, above=0)
    """Learning rate of the MLP (AdamW)."""
    classifier_weight_decay: float = bounded(1e-2, least=0)
    """Weight decay of the MLP (AdamW)."""
    classifier_batch_size: int = bounded(256, least=1)
    """Rows in one batch of the MLP."""
    classifier_epochs: int = bounded(30, least=1)
    """Epochs of the MLP at most. An epoch has as many batches for every method: those that the
    real training rows make."""
    classifier_patience: int = bounded(5, least=1)
    """Epochs without a better AUPR in validation after which the MLP stops; the best one's weights
    are kept."""


@dataclass(frozen=True, kw_only=True)
class AugmentSettings(
    ClassifierSettings, GeneratorSettings, GateSettings, ClassedSourceSettings, OutputSettings
):
    """Train a classifier of a rare class on real rows and on rows added to them; judge by real
    ones."""

    rare_class: str | None = None
    """The class to find, and to add rows to; default: the smaller of both in training."""
    group_column: str | None = None
    """Column with what rows have in common (protein, scaffold, patient): whole groups are held out
    from the generator and resampled for intervals; default: the domain of molecules."""
    val_split: str = "iid_val"
    """Split that stops the classifier and chooses the threshold."""
    test_split: list[str] = field(default_factory=list)
    """Splits that judge; default: ood_test, or iid_test in files without it."""
    methods: list[str] = field(default_factory=lambda: list(METHODS))
    """Methods to compare with nothing: class_weights, oversampling, smote, gaussian, generated,
    generated_ungated."""
    rare_share: float = bounded(0.5, above=0, below=1)
    """Share that the rare class has of the training rows once rows are added to it (of their
    weight, for class_weights)."""
    holdout_share: float = bounded(0.15, above=0, below=0.5)
    """Share of each class's training rows, by whole groups, that the generator does not learn
    from: they choose its step and set the scale of quality."""
    seeds: int | list[int] = 5
    """Seeds, or how many of them, from --seed on; each draws rows anew and trains a classifier."""
    threshold_by: Literal["mcc", "f1"] = "mcc"
    """What the threshold makes highest in validation."""
    bootstrap_samples: int = bounded(1000, least=100)
    """Resamples of the test groups behind the 95-percent intervals."""
    allow_overlap: bool = False
    """Warn, instead of stopping, when a molecule is in two splits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        seeds = self.seeds if isinstance(self.seeds, list) else [self.seeds]
        if not seeds or len(set(seeds)) != len(seeds):
            raise InputError(f"--seeds {self.seeds}: give at least one seed, and none twice")
        if min(seeds) < (0 if isinstance(self.seeds, list) else 1):
            raise InputError(
                f"--seeds {self.seeds}: a seed is at least 0, and there is one at least"
            )
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise InputError(
                f"--methods {unknown[0]}: no such method; there are {some([*METHODS], 9)}"
            )

    @property
    def all_seeds(self) -> list[int]:
        """The seeds."""
        if isinstance(self.seeds, list):
            return self.seeds
        return list(range(self.seed, self.seed + self.seeds))

    @property
    def all_methods(self) -> list[str]:
        """The methods in their usual order, each once; `nothing` is always one."""
        return [name for name in METHODS if name in (PLAIN, *self.methods)]
