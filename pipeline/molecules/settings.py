"""Settings of data files and splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.molecules.sequences import LONGEST, SHORTEST
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import Settings, bounded


@dataclass(frozen=True, kw_only=True)
class LibrarySettings(Settings):
    """Where molecules come from."""

    data_file: str
    """Table (.csv, .tsv, .txt, .parquet, .jsonl), SMILES file (.smi, .cxsmiles), SDF (.sdf),
    DrugOOD JSON (.json), or FASTA (.fasta, .fa, .faa) of proteins and peptides, also with .gz,
    .bz2, .xz, .zst; or a folder of such files. A local path or any fsspec URI."""
    dataset: str | None = None
    """Name for reports; default: the data file's name."""
    smiles_column: str = "smiles"
    """Column of a table that holds the SMILES."""
    sequence_column: str | None = None
    """Column of a table that holds sequences of amino acids; its molecules are proteins and
    peptides then, as those of FASTA files are."""
    residues: Literal["standard", "extended"] = "standard"
    """Letters that a sequence may have: the 20 standard amino acids, or extended by X, U, B, Z
    and O."""
    min_length: int = bounded(SHORTEST, least=1)
    """Residues that a sequence has at least; shorter ones are rejected."""
    max_length: int = bounded(LONGEST, least=1)
    """Residues that a sequence has at most; longer ones are rejected, none is cropped."""
    id_column: str | None = None
    """Column with unique ids; default: the second field of SMILES files, the titles of SDFs, else
    file name and row number."""
    structures: Literal["made", "file"] = "made"
    """Conformers: made from the SMILES, or the 3D coordinates that an SDF has."""
    fragments: Literal["keep", "largest"] = "keep"
    """Of a salt or mixture: keep all fragments, or only the largest one, whose charge stays."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_length > self.max_length:
            raise InputError(
                f"--min_length {self.min_length} is above --max_length {self.max_length}"
            )


@dataclass(frozen=True, kw_only=True)
class SourceSettings(LibrarySettings):
    """Where molecules with labels or splits come from."""

    label_column: str | None = None
    """Column with a numeric label, carried along."""
    domain_column: str | None = None
    """Column with the domain (scaffold, assay, ...) that whole-domain cuts go by."""
    split_column: str | None = None
    """Column with train, iid_val, iid_test, ood_val or ood_test; val, test: the iid ones."""


@dataclass(frozen=True, kw_only=True)
class SplitSettings(SourceSettings):
    """Cut a table into a DrugOOD-format split."""

    output: str
    """File to write: .json or .json.gz."""
    by: Literal["scaffold", "size", "cluster", "column", "time"] = "scaffold"
    """Domain of a molecule: its Murcko scaffold, its number of heavy atoms (of residues, if it is a
    sequence), its cluster of similar ones, a column, or the date or year in a column (the earliest
    are ID)."""
    column: str | None = None
    """Column that holds the domain, with --by column, or the date or year, with --by time."""
    clusters: int = bounded(30, least=2)
    """Clusters that --by cluster makes; of sequences by k-means alone."""
    cluster_method: Literal["auto", "kmeans", "mmseqs2"] = "auto"
    """How --by cluster groups: k-means of fingerprints (ECFP4, of sequences k-mers), or sequences
    by identity with MMseqs2; auto: MMseqs2 for sequences if it is on the PATH, else k-means."""
    identity: float = bounded(0.4, above=0, below=1)
    """Share of identical residues in an alignment that links two sequences (MMseqs2)."""
    coverage: float = bounded(0.8, above=0, below=1)
    """Share of either sequence that such an alignment has at least (MMseqs2)."""
    column_order: Literal["count", "value"] = "count"
    """Order of a column's domains: most molecules first (as DrugOOD sorts assays), or
    ascending by value: numbers, dates (the oldest are ID), or words, if none has a digit."""
    date_format: str | None = None
    """How dates are written that are not ISO, for --column_order value and --by time: '%d/%m/%Y'
    if the day comes first."""
    missing_domain: Literal["error", "drop"] = "error"
    """Rows whose domain is missing (an empty cell, NA, nan, null, ...): stop, or drop them."""
    duplicates: Literal["first", "mean", "drop"] = "first"
    """A molecule with several rows gets the first label that is there, or the mean of those that
    are; drop leaves out every molecule whose labels differ."""
    id_fraction: float = bounded(0.6, above=0, below=1)
    """Share of molecules, by whole domains, that are in-distribution."""
    ood_val_fraction: float = bounded(0.2, above=0, below=1)
    """Share of molecules, by whole domains, that go to ood_val; the rest is ood_test."""
    max_molecules: int | None = bounded(None, least=1)
    """Split a seeded random sample of this many molecules instead of all."""
    seed: int = bounded(42, least=0)
    """Seed of the sample, the clusters and their order, and the cut of ID molecules."""

    @property
    def has_column(self) -> bool:
        """Whether the domains are those of a column."""
        return self.by in ("column", "time")


@dataclass(frozen=True, kw_only=True)
class SamplingSettings(Settings):
    """Which molecules of a split file are used."""

    sampling: Literal["all", "drugood", "good"] = "all"
    """Molecules a split: all; or as in the papers' tables, drugood 2000 train, 600 validation,
    1000 test; good 5000, 1500, 2000."""
    train_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, training molecules at most; overrides --sampling."""
    val_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, validation molecules at most; overrides --sampling."""
    test_size: int | None = bounded(None, least=1)
    """ID, and as many OOD, test molecules at most; overrides --sampling."""
    ood_ratio: float | None = bounded(None, above=0)
    """OOD training molecules for each ID one at most (0.02: one for 50), a seeded sample; default:
    as many as there are, or as --train_size says."""
    debug_dataset_size: int | None = bounded(None, least=1)
    """Shrink every split in proportion, so that this many ID training molecules stay."""
    data_seed: int = bounded(42, least=0)
    """Seed of the sampling and of the OOD validation cut."""
    ood_val_by: Literal["domain", "molecule"] = "domain"
    """Cut OOD validation from ood_val by whole domains (where domains exist) or by molecules."""
    allow_overlap: bool = False
    """Warn, instead of stopping, when a molecule is in two splits."""
