"""Settings of jobs.fold."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from pipeline.molecules.settings import SourceSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import OutputSettings, bounded
from pipeline.store.settings import StoreSettings

ESMFOLD_ONLY = ("structure_weights", "recycles", "precision", "device", "fold_workers")


@dataclass(frozen=True, kw_only=True)
class FoldSettings(SourceSettings, StoreSettings, OutputSettings):
    """Structures of proteins and peptides, from ESMFold or from your files, into the store."""

    structures: Literal["esmfold", "folder"] = "esmfold"
    """Structures: ESMFold's, made here, or those of the files in --structure_folder."""
    structure_folder: str | None = None
    """Folder or fsspec URI with PDB or mmCIF files (.pdb, .ent, .cif, .mmcif, also .gz), such as
    AlphaFold DB's; with --structures folder."""
    structure_weights: str | None = None
    """ESMFold in Hugging Face's layout: a folder; default: facebook/esmfold_v1, found on this
    machine or downloaded (8 GB)."""
    recycles: int | None = bounded(None, least=0)
    """Times that ESMFold's result goes into its trunk again; default: as its config says (3)."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of ESMFold's matrix products; auto: bf16 on GPUs and on CPUs that are faster in it,
    else fp32. It refuses fp16, which gives NaN."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of ESMFold; auto takes GPUs if the cluster has any."""
    fold_workers: int | None = bounded(None, least=1)
    """ESMFold actors; default: one a GPU, or as many as cores (four each) and memory allow."""
    store_gb: float = bounded(10.0, above=0)
    """Most that structures may take in the store, GiB; those that were not used longest go."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "fp16":
            raise InputError(
                "--precision fp16: ESMFold overflows in it and gives NaN; use bf16, fp32 or auto"
            )
        if (self.structures == "folder") != (self.structure_folder is not None):
            raise InputError("--structure_folder and --structures folder go together")
        given = [f"--{f.name}" for f in fields(self)
                 if f.name in ESMFOLD_ONLY and getattr(self, f.name) != f.default]  # fmt: skip
        if self.structures == "folder" and given:
            raise InputError(
                f"--structures folder: {', '.join(given)} would change ESMFold only; leave out"
            )
