"""Settings of jobs.pretrain."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from pipeline.conformers.settings import ConformerSettings
from pipeline.molecules.folders import FASTAS, format_of
from pipeline.molecules.settings import SourceSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import OptimizerSettings, OutputSettings, Settings, bounded
from pipeline.store.settings import StoreSettings

# What a setting is that is not given, by the model: as its authors have it.
DEFAULTS: dict[str, dict[str, Any]] = {
    "unimol": {
        "layers": 15, "width": 512, "ffn_width": 2048, "heads": 64, "dropout": 0.1,
        "unmasked_share": 0.05, "random_share": 0.05, "lr": 1e-4, "weight_decay": 1e-4,
        "holdout_size": 2000,
    },
    "esm": {
        "layers": 6, "width": 320, "ffn_width": 1280, "heads": 20, "dropout": 0.0,
        "unmasked_share": 0.1, "random_share": 0.1, "lr": 4e-4, "weight_decay": 0.01,
        "holdout_size": 500,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MoleculeTask(ConformerSettings):
    """What a Uni-Mol has to tell of molecules."""

    coordinate_noise: float = bounded(1.0, least=0)
    """Å by which the coordinates of hidden atoms move at most, uniformly."""
    token_weight: float = bounded(1.0, least=0)
    """Weight of the loss on atom types."""
    coord_weight: float = bounded(5.0, least=0)
    """Weight of the loss on coordinates."""
    distance_weight: float = bounded(10.0, least=0)
    """Weight of the loss on distances."""
    norm_weight: float = bounded(0.01, least=0)
    """Weight of the losses that keep norms of atoms and pairs near the expected."""
    batch_size: int = bounded(128, least=1)
    """Molecules in one step, over all workers."""
    token_order: Literal["unimol_tools", "official"] = "unimol_tools"
    """Order of the special tokens in the file: that in which unimol_tools reads its weights, or
    that of mol.dict.txt, as the published weights have it. MolSieve reads both."""


@dataclass(frozen=True, kw_only=True)
class SequenceTask(Settings):
    """What an ESM-2 sees of sequences."""

    context: int = bounded(1026, least=4)
    """Tokens that an ESM-2 is made for, two of them reserved; held-out sequences are seen up to
    this length."""
    crop_length: int = bounded(1022, least=1)
    """Residues of a sequence that a step sees at most; a longer one is seen in several parts, at
    places drawn anew in each epoch."""
    batch_tokens: int = bounded(32768, least=1)
    """Tokens in one step, over all workers, padding counted."""
    tokens_at_once: int = bounded(16384, least=1)
    """Tokens that a worker computes at once; more steps of a batch give the same model."""
    steps: int | None = bounded(None, least=1)
    """Steps of the optimiser, instead of whole epochs."""
    exclude_file: str | None = None
    """Sequences that must not be trained on or held out: FASTA, or a table with --sequence_column,
    or else with ids in --id_column (or `id`)."""


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(
    SourceSettings, MoleculeTask, SequenceTask, OptimizerSettings, OutputSettings
):
    """Pretrain a Uni-Mol on molecules without labels, or an ESM-2 on sequences, as those were."""

    max_length: int = bounded(100_000, least=1)
    """Residues that a sequence has at most; longer ones are rejected. Those that are longer than
    --crop_length are seen in parts."""
    foundation_model: Literal["unimol", "esm"] | None = None
    """Model to pretrain; default: esm for a FASTA file or --sequence_column, else unimol."""
    layers: int | None = bounded(None, least=1)
    """Layers of the model; default: 15, of an ESM-2 6."""
    width: int | None = bounded(None, least=1)
    """Length of an atom's or residue's vector, and of a feature; default: 512, of an ESM-2 320."""
    ffn_width: int | None = bounded(None, least=1)
    """Width within a layer's feed-forward part; default: 2048, of an ESM-2 1280."""
    heads: int | None = bounded(None, least=1)
    """Attention heads; must divide --width. Default: 64, of an ESM-2 20."""
    dropout: float | None = bounded(None, least=0, below=1)
    """Dropout on attention weights and on updates, and after Uni-Mol's embedding; default: 0.1,
    of an ESM-2 0."""
    mask_share: float = bounded(0.15, above=0, below=1)
    """Share of a molecule's atoms, or of residues, that the model has to tell."""
    unmasked_share: float | None = bounded(None, least=0, below=1)
    """Share of those that are left as they are; default: 0.05, of residues 0.1."""
    random_share: float | None = bounded(None, least=0, below=1)
    """Share of those that get a random element or residue instead of a mask; default: 0.05, of
    residues 0.1."""
    epochs: int = bounded(10, least=1)
    """Passes over the molecules or sequences."""
    lr: float | None = bounded(None, above=0)
    """Peak learning rate (AdamW); it falls linearly to 0. Default: 1e-4, of an ESM-2 4e-4."""
    num_workers: int = bounded(1, least=1)
    """Training workers; the model is the same for any number (but for dropout and rounding)."""
    weight_decay: float | None = bounded(None, least=0)
    """Weight decay (AdamW), of matrices only; default: 1e-4, of an ESM-2 0.01."""
    warmup_share: float = bounded(0.01, least=0, below=1)
    """Share of the steps over which the learning rate rises from 0."""
    holdout_size: int | None = bounded(None, least=1)
    """Molecules or sequences that are not trained on, for the held-out losses; default: 2000, of
    sequences 500, with all that are similar to them."""
    checkpoint_every: int = bounded(500, least=1)
    """Steps between held-out losses, and between checkpoints to resume from."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the matrix products; auto: bf16 on GPUs since Ampere and on CPUs that
    are faster in it, else fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the training; auto takes GPUs if the cluster has any."""
    weights_precision: Literal["fp32", "fp16"] = "fp32"
    """Precision of the tensors in the file."""
    seed: int = bounded(42, least=0)
    """Seed of the first weights, the held-out ones, batches, masks and dropout."""

    def __post_init__(self) -> None:
        of_sequences = self.sequence_column is not None or format_of(self.data_file) in FASTAS
        model = self.foundation_model or ("esm" if of_sequences else "unimol")
        for name, value in {**DEFAULTS[model], "foundation_model": model}.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)  # the class is frozen
        super().__post_init__()
        if self.width % self.heads:
            raise InputError(f"--heads {self.heads} does not divide --width {self.width}")
        self._check_task()
        if self.unmasked_share + self.random_share > 1:
            raise InputError("--unmasked_share and --random_share are more than all together")

    def _check_task(self) -> None:
        """Settings of the other model would say nothing."""
        sequences = self.foundation_model == "esm"
        other, shared = (MoleculeTask, StoreSettings) if sequences else (SequenceTask, Settings)
        for name in {f.name for f in fields(other)} - {f.name for f in fields(shared)}:
            default = self.__dataclass_fields__[name].default
            if default is not MISSING and getattr(self, name) != default:
                one, data = ("Uni-Mol", "sequences") if sequences else ("an ESM-2", "molecules")
                raise InputError(
                    f"--{name} is a setting of {one}, but {self.data_file} is read as {data} "
                    f"(--foundation_model {self.foundation_model}); leave it out"
                )
        if not sequences:
            return
        if self.crop_length > self.context - 2:
            raise InputError(
                f"--crop_length {self.crop_length} is longer than the residues of --context "
                f"{self.context}: at most {self.context - 2}"
            )
        if (self.width // self.heads) % 2:
            raise InputError(
                f"--width {self.width} over --heads {self.heads} is "
                f"{self.width / self.heads:g}: rotary positions need an even width of each head"
            )
