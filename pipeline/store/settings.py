"""Settings of the store."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.runtime.settings import Settings


@dataclass(frozen=True, kw_only=True)
class StoreSettings(Settings):
    """Where results are kept and found again."""

    cache_root: str = ".molsieve"
    """Folder or fsspec URI of the store of conformers and features."""
    force_recompute_cache: bool = False
    """Compute conformers and features anew even if the store has them."""
    retry_rejected: bool = False
    """Try molecules again that an earlier run rejected."""
