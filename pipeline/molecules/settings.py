"""Settings of data files and splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.runtime.settings import Settings, bounded


@dataclass(frozen=True, kw_only=True)
class LibrarySettings(Settings):
    """Where molecules come from."""

    data_file: str
    """DrugOOD JSON (.json), CSV or TSV (.csv, .tsv), SMILES file (.smi), each also with .gz;
    Parquet (.parquet); or a folder of such files. A local path or any fsspec URI."""
    dataset: str | None = None
    """Name for reports; default: the data file's name."""
    smiles_column: str = "smiles"
    """Column of a table that holds the SMILES."""
    id_column: str | None = None
    """Column with unique ids; default: file name and row number."""


@dataclass(frozen=True, kw_only=True)
class SourceSettings(LibrarySettings):
    """Where molecules with labels or splits come from."""

    label_column: str | None = None
    """Column with a numeric label, carried along."""
    domain_column: str | None = None
    """Column with the domain (scaffold, assay, ...) that whole-domain cuts go by."""
    split_column: str | None = None
    """Column with train, iid_val, iid_test, ood_val or ood_test."""


@dataclass(frozen=True, kw_only=True)
class SplitSettings(SourceSettings):
    """Cut a table into a DrugOOD-format split."""

    output: str
    """File to write: .json or .json.gz."""
    by: Literal["scaffold", "size", "column"] = "scaffold"
    """Domain of a molecule: its Murcko scaffold, its number of heavy atoms, or a column."""
    column: str | None = None
    """Column that holds the domain, with --by column."""
    column_order: Literal["count", "value"] = "count"
    """Order of a column's domains: most molecules first (as DrugOOD sorts assays), or
    ascending by value (years: the oldest are ID)."""
    id_fraction: float = bounded(0.6, above=0, below=1)
    """Share of molecules, by whole domains, that are in-distribution."""
    ood_val_fraction: float = bounded(0.2, above=0, below=1)
    """Share of molecules, by whole domains, that go to ood_val; the rest is ood_test."""
    max_molecules: int | None = bounded(None, least=1)
    """Split a seeded random sample of this many molecules instead of all."""
    seed: int = bounded(42, least=0)
    """Seed of the sample and of the cut within each ID domain."""


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(Settings):
    """Which molecules of a split file are used."""

    sampling: Literal["drugood", "good", "all"] = "drugood"
    """Molecules a split: drugood 2000 train, 600 validation, 1000 test; good 5000, 1500, 2000."""
    train_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, training molecules at most; overrides --sampling."""
    val_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, validation molecules at most; overrides --sampling."""
    test_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, test molecules at most; overrides --sampling."""
    debug_dataset_size: int | None = bounded(None, least=1)
    """Shrink every split in proportion, so that this many ID training molecules stay."""
    data_seed: int = bounded(42, least=0)
    """Seed of the sampling and of the OOD validation cut."""
    ood_val_by: Literal["domain", "molecule"] = "domain"
    """Cut OOD validation from ood_val by whole domains (where domains exist) or by molecules."""
    allow_overlap: bool = False
    """Warn, instead of stopping, when a molecule is in two splits."""
