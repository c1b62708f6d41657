"""Settings of jobs.generate_peptides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.encoding.settings import EncodedSourceSettings
from pipeline.generation.settings import DiffusionSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import OutputSettings, bounded


@dataclass(frozen=True, kw_only=True)
class PeptideGeneratorSettings(DiffusionSettings):
    """A class-conditional diffusion model of peptides' latents, its decoder and their training."""

    noise_shift: float | None = bounded(None, above=0, below=1000)
    """What the noise beside the signal is multiplied by at each step; default: so much that half of
    what latents tell of single residues is told at half of the steps."""
    width: int = bounded(256, least=16)
    """Width of the model's layers; a multiple of twice --heads."""
    blocks: int = bounded(6, least=1)
    """Transformer blocks of the model."""
    heads: int = bounded(4, least=1)
    """Attention heads of a block."""
    batch_residues: int = bounded(4096, least=1)
    """Residues in one batch, padding included, over all workers; a batch has peptides of about one
    length."""
    self_conditioning: float = bounded(0.5, least=0, below=1)
    """Share of training batches in which the model sees a guess of its own; 0: none, and none when
    samples are drawn."""
    structure_dropout: float = bounded(0.5, least=0, below=1)
    """Share of training rows whose structure is hidden: there is none when samples are drawn."""
    decoder_noise: float = bounded(0.5, least=0)
    """Most noise, in deviations, on the latents from which the decoder learns to tell residues."""
    loader_threads: int = bounded(1, least=1)
    """Threads of a worker that make batches ahead."""
    compile: bool = False
    """Compile the model (torch.compile), once for each length that batches are padded to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise InputError(f"--width {self.width} is no multiple of twice --heads {self.heads}")


@dataclass(frozen=True, kw_only=True)
class GeneratePeptidesSettings(PeptideGeneratorSettings, EncodedSourceSettings, OutputSettings):
    """Train a generator of peptides, draw some of each class, and judge them beside controls."""

    foundation_model: Literal["esm"] = "esm"
    """Encoder of the residues' latents."""
    weights: str | None = "mini-protein"
    """Of ESM-2: a folder in Hugging Face's layout, a published model's name, or 'mini-protein', the
    small one that comes with MolSieve."""
    class_column: str | None = None
    """Column with the class; default: all peptides are of one class."""
    structure_table: str | None = None
    """Structures of the peptides in the store: what jobs.fold's folding_summary.json has as
    `structures`; default: none."""
    shuffle_structures: bool = False
    """Give each peptide the structure of another of its class and about its length: what
    structures are worth is what the model learns from them beyond that."""
    num_samples: int = bounded(500, least=1)
    """Peptides of each class."""
    classes: list[str] | None = None
    """Classes to draw; default: all."""
    holdout_share: float = bounded(0.15, above=0, below=0.5)
    """Share of each class, by whole clusters of similar peptides, that is not trained on: it
    chooses the step whose weights are kept, and is the real sample beside generated ones."""
    holdout_identity: float = bounded(0.5, above=0, below=1)
    """Peptides at least so alike are in one cluster (1 − edits / residues of the longer)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shuffle_structures and self.structure_table is None:
            raise InputError("--shuffle_structures needs --structure_table")
        if self.residues != "standard":
            raise InputError("--residues extended: peptides are made of the 20 amino acids alone")


@dataclass(frozen=True, kw_only=True)
class TunePeptidesSettings(GeneratePeptidesSettings):
    """Find the residues in a batch with which a generator trains fastest on this machine."""

    memory_gb: float | None = bounded(None, above=0)
    """Memory that training may take, GiB (of the GPU, or resident on a CPU); default: all."""
    seconds: float = bounded(5.0, above=0)
    """Time that each size is tried for at least."""
