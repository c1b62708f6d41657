"""A small ESM-2 in Hugging Face's layout, random values."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import EsmForMaskedLM

from pipeline.encoders.esm.model import esm_config
from pipeline.encoders.esm.tokens import VOCABULARY


def save_tiny_esm(folder: Path, seed: int = 7) -> Path:
    """As published: with the head of masked residues, whose tensors the encoder does without."""
    torch.manual_seed(seed)
    config = esm_config(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
        initializer_range=0.3,
    )  # fmt: skip
    EsmForMaskedLM(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return folder
