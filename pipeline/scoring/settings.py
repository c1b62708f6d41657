"""Settings of jobs.score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.molecules.settings import LibrarySettings
from pipeline.runtime.settings import Settings, bounded
from pipeline.training.settings import CheckpointSettings


@dataclass(frozen=True, kw_only=True)
class VerdictSettings(Settings):
    """What is said of a library's molecules, and how they are gone through."""

    alpha: float = bounded(0.05, above=0, below=1)
    """A molecule is OOD if its p-value is at most this: the share of ID molecules that are
    called OOD wrongly. Another level, here or of intervals, rewrites the verdicts alone."""
    interval_alpha: float = bounded(0.1, above=0, below=1)
    """With an error model: the share of ID molecules whose measured value lies outside of lower to
    upper."""
    top: int = bounded(20, least=0)
    """So many most and least OOD molecules go to a table of their own, with drawings."""
    chunk_size: int = bounded(1000, least=1)
    """Rows that are scored and written together; what a kill can lose on each core."""
    keep_encodings: bool = True
    """Keep the library's conformers and features in the store; false: only read what it has (the
    validation molecules' are kept)."""


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(LibrarySettings, CheckpointSettings, VerdictSettings):
    """Score a library of any size with a trained detector."""

    fragments: Literal["keep", "largest"] | None = None
    """Of a salt or mixture: keep all fragments, or only the largest; default: as in training."""
    predictions: str | None = None
    """Your own model's predictions of the library, where the error model was trained with
    --predictions: a table with SMILES and a column of the same name as there."""
    conformer_seconds: float = bounded(60.0, above=0)
    """Time that one molecule's conformer may take before the molecule is rejected."""
    conformer_gb: float = bounded(4.0, above=0)
    """Memory that one molecule's conformer may take, GiB, before the molecule is rejected."""
    encoding_batch_size: int | None = bounded(None, least=1)
    """Upper bound on molecules in one forward pass; default: 128 on a CPU, 4096 on a GPU."""
    encoder_workers: int | None = bounded(None, least=1)
    """Encoder actors; default: one a GPU, or one a CPU core; on a CPU the driver
    scores alone what it is through with before actors would have started."""
