"""Settings of jobs.check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.encoding.settings import EncodedSourceSettings
from pipeline.runtime.settings import bounded


@dataclass(frozen=True, kw_only=True)
class CheckSettings(EncodedSourceSettings):
    """Tell what MolSieve understands of a data file, and what a run would cost."""

    foundation_model: (
        Literal["unimol", "unimol2", "minimol", "ecfp", "descriptors", "esm"] | None
    ) = None
    """Encoder whose run to estimate: unimol, unimol2 (3D, need conformers), minimol (2D), ecfp
    (ECFP4 fingerprint) or descriptors (of RDKit), of sequences esm; default: only look at the
    file."""
    checkpoint: str | None = None
    """Checkpoint folder whose encoder's run to estimate, in place of --foundation_model."""
    report: str | None = None
    """JSON file to write the same to, for programs."""
    sample: int = bounded(64, least=1)
    """Molecules whose structures are made (with --structures file: looked at) to tell how many are
    2D, and that an encoder named encodes and keeps in the store."""
