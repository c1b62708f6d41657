"""Settings of jobs.pretrain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.conformers.settings import ConformerSettings
from pipeline.molecules.settings import SourceSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import OptimizerSettings, OutputSettings, bounded


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(SourceSettings, ConformerSettings, OptimizerSettings, OutputSettings):
    """Pretrain a Uni-Mol on molecules without labels, as Uni-Mol was."""

    layers: int = bounded(15, least=1)
    """Layers of the model."""
    width: int = bounded(512, least=1)
    """Length of an atom's vector, and of a feature."""
    ffn_width: int = bounded(2048, least=1)
    """Width within a layer's feed-forward part."""
    heads: int = bounded(64, least=1)
    """Attention heads; must divide --width."""
    dropout: float = bounded(0.1, least=0, below=1)
    """Dropout after the embedding, on attention weights and on updates."""
    mask_share: float = bounded(0.15, above=0, below=1)
    """Share of a molecule's atoms that the model has to tell."""
    unmasked_share: float = bounded(0.05, least=0, below=1)
    """Share of those that are left as they are."""
    random_share: float = bounded(0.05, least=0, below=1)
    """Share of those that get a random element instead of [MASK]."""
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
    epochs: int = bounded(10, least=1)
    """Passes over the molecules."""
    batch_size: int = bounded(128, least=1)
    """Molecules in one step, over all workers."""
    lr: float = bounded(1e-4, above=0)
    """Peak learning rate (AdamW); it falls linearly to 0."""
    num_workers: int = bounded(1, least=1)
    """Training workers; the model is the same for any number (but for dropout and rounding)."""
    weight_decay: float = bounded(1e-4, least=0)
    """Weight decay (AdamW), of matrices only."""
    warmup_share: float = bounded(0.01, least=0, below=1)
    """Share of the steps over which the learning rate rises from 0."""
    holdout_size: int = bounded(2000, least=1)
    """Molecules that are not trained on, for the held-out losses."""
    checkpoint_every: int = bounded(500, least=1)
    """Steps between held-out losses, and between checkpoints to resume from."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the matrix products; auto: bf16 where the hardware has it, else fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the training; auto takes GPUs if the cluster has any."""
    token_order: Literal["unimol_tools", "official"] = "unimol_tools"
    """Order of the special tokens in the file: that in which unimol_tools reads its weights, or
    that of mol.dict.txt, as the published weights have it. MolSieve reads both."""
    weights_precision: Literal["fp32", "fp16"] = "fp32"
    """Precision of the tensors in the file."""
    seed: int = bounded(42, least=0)
    """Seed of the first weights, the held-out molecules, batches, masks and dropout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise InputError(f"--heads {self.heads} does not divide --width {self.width}")
        if self.unmasked_share + self.random_share > 1:
            raise InputError("--unmasked_share and --random_share are more than all together")
