"""Settings of conformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.runtime.settings import bounded
from pipeline.store.settings import StoreSettings


@dataclass(frozen=True, kw_only=True)
class ConformerSettings(StoreSettings):
    """How 3D structures are made."""

    conformer_method: Literal["etkdg+mmff", "etkdg", "nvmolkit"] = "etkdg+mmff"
    """How conformers are made: ETKDG relaxed by MMFF94, as the published weights expect; ETKDG
    alone, which takes half the time; or nvmolkit, which does both on GPUs, if it is installed."""
    conformer_seed: int = bounded(42, least=0)
    """Random seed of the 3D embedding."""
    conformer_seconds: float = bounded(60.0, above=0)
    """Time that one molecule's conformer may take before the molecule is rejected."""
    conformer_gb: float = bounded(4.0, above=0)
    """Memory that one molecule's conformer may take, GiB, before the molecule is rejected."""
