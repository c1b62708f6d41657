"""Settings of encoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.conformers.settings import ConformerSettings
from pipeline.runtime.settings import bounded


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(ConformerSettings):
    """Which encoder makes the features, and how."""

    foundation_model: Literal["unimol", "unimol2", "minimol", "ecfp", "descriptors", "esm"] = (
        "unimol"
    )
    """Encoder: unimol (3D, needs conformers), unimol2 (3D and the graph, by unimol_tools), minimol
    (2D), or without a model ecfp (ECFP4 fingerprint, 2048 bits) or descriptors (thirteen of RDKit,
    not scaled); of sequences esm (ESM-2, by transformers)."""
    model_size: (
        Literal["84m", "164m", "310m", "570m", "1.1B", "8m", "35m", "150m", "650m", "3B"] | None
    ) = None
    """Size of unimol2 (84m to 1.1B; default: 84m) or of esm (8m to 3B; default: 8m)."""
    weights: str | None = None
    """Uni-Mol checkpoint: a path, a published file's name, 'mini' for the small pretrained model
    that comes with MolSieve, or 'untrained' for seeded random weights; default:
    mol_pre_no_h_220816.pt from the weight folder or by download. Where unimol2 is asked for without
    unimol, Uni-Mol2's: a path, a folder with the published files, a file's name there, 'untrained';
    default: the published file of --model_size, found or downloaded as well. Of esm: a folder in
    Hugging Face's layout, a published model's name (esm2_t33_650M_UR50D), 'mini-protein' for the
    small one that comes with MolSieve, or 'untrained'."""
    token_order: Literal["auto", "official", "unimol_tools"] = "auto"
    """Order of the special tokens in the checkpoint's embedding; auto finds the padding row."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the matrix products of unimol, unimol2, minimol and esm; auto: bf16 on GPUs and
    on CPUs that are faster in it, else fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the encoder and the trainer; auto takes GPUs if the cluster has any."""
    finetuned: str | None = None
    """Checkpoint of jobs.train --finetune_encoder, whose layers replace those of --weights."""
    encoding_batch_size: int | None = bounded(None, least=1)
    """Upper bound on molecules in one forward pass; default: 128 on a CPU, 4096 on a GPU."""
    encoder_workers: int | None = bounded(None, least=1)
    """Encoder actors; default: one a GPU, or one a CPU core; none on a CPU where the driver is
    through before actors would be."""
