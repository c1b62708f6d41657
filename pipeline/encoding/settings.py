"""Settings of jobs.encode and jobs.tune."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.encoders.settings import EncoderSettings
from pipeline.molecules.settings import SourceSettings
from pipeline.runtime.settings import OutputSettings, bounded


@dataclass(frozen=True, kw_only=True)
class EncodedSourceSettings(SourceSettings, EncoderSettings):
    """Molecules, and the encoder of their features."""


@dataclass(frozen=True, kw_only=True)
class EncodeSettings(EncodedSourceSettings, OutputSettings):
    """Encode molecules into the store."""

    residue_features: Literal["float16", "float32"] | None = None
    """Of sequences, keep each residue's feature too, in this precision (esm)."""


@dataclass(frozen=True, kw_only=True)
class TuneSettings(EncodedSourceSettings):
    """Find the batch sizes at which an encoder is fastest on this machine."""

    memory_gb: float | None = bounded(None, above=0)
    """Memory that one encoder may take, GiB (of the GPU, or resident on a CPU); default: all."""
    seconds: float = bounded(2.0, above=0)
    """Time that each size is tried for at least."""
