"""Settings of jobs.evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.runtime.settings import bounded
from pipeline.training.settings import CheckpointSettings


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(CheckpointSettings):
    """Evaluate a trained head on the test splits."""

    test_data_file: str | None = None
    """Another data file whose iid_test and ood_test are the test set; default: the training
    run's data file."""
    smiles_column: str | None = None
    """SMILES column of --test_data_file; default: the training run's."""
    sequence_column: str | None = None
    """Column of sequences of --test_data_file; default: the training run's."""
    id_column: str | None = None
    """Id column of --test_data_file; default: the training run's."""
    split_column: str | None = None
    """Split column of --test_data_file; default: the training run's."""
    fragments: Literal["keep", "largest"] | None = None
    """Of a salt or mixture: keep all fragments, or only the largest; default: as in training."""
    test_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, test molecules at most; default: the training run's sampling."""
    eval_batch_size: int = bounded(2048, least=1)
    """Molecules in one forward pass."""
    bootstrap_samples: int = bounded(1000, least=100)
    """Resamples behind the 95-percent intervals."""
    seed: int = bounded(42, least=0)
    """Seed of the bootstrap."""
    allow_overlap: bool = False
    """Warn, instead of stopping, when a test molecule was in training."""
