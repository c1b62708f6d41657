"""Settings of jobs.trust."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.molecules.settings import LibrarySettings
from pipeline.runtime.settings import OutputSettings, bounded


@dataclass(frozen=True, kw_only=True)
class TrustSettings(LibrarySettings, OutputSettings):
    """Tell whether scores find the errors of predictions, of a table with measured values."""

    prediction_column: str
    """Column with the predictions: numbers, or of 0/1 values probabilities."""
    label_column: str
    """Column with the measured values, numbers or 0 and 1."""
    label_file: str | None = None
    """Table of molecules that has --label_column, if the data file has not (as the scores of
    jobs.screen): values are found by molecule."""
    score_columns: list[str] = field(default_factory=list)
    """Columns with scores that should find the errors; higher means: trust it less."""
    spread_column: str | None = None
    """Column with the model's own spread (of an ensemble, say); larger means less sure."""
    lower_column: str | None = None
    """Column with the lower bounds of intervals to check; goes with --upper_column."""
    upper_column: str | None = None
    """Column with the upper bounds of intervals to check; goes with --lower_column."""
    split_column: str | None = None
    """Column that says which rows are in domain (iid_test, test, ...) and which out of it
    (ood_test); default: by likeness to --id_file, if that is given."""
    id_file: str | None = None
    """The training set of the model, in any of the data file's formats: adds the Tanimoto
    distances to it as scores to beat."""
    interval_alpha: float = bounded(0.1, above=0, below=1)
    """Share of measured values that may lie outside the intervals."""
    bootstrap_samples: int = bounded(1000, least=100)
    """Resamples behind the 95-percent intervals of the metrics."""
    seed: int = bounded(42, least=0)
    """Seed of the bootstrap, of the random score, and of the halves that calibrate intervals."""
