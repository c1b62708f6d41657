"""ESM-2 (Lin et al., Science 2023) of any size, its loss, and its folder in Hugging Face's layout.

The model is transformers' own, with rotary positions, layer norms before each part, token dropout
and an output layer that shares the embedding's weights, as the published ESM-2 have them.

Shapes: B sequences, N tokens, M residues to be told.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor
from transformers import EsmConfig, EsmForMaskedLM

from pipeline.encoders.esm.model import esm_config
from pipeline.encoders.esm.tokens import MASK, VOCABULARY
from pipeline.pretraining.sequences.masking import MaskedBatch
from pipeline.pretraining.settings import PretrainSettings

TIED = "lm_head.decoder.weight"  # is the embedding; not stored twice
POSITIONS = "esm.rotary_embeddings.inv_freq"  # in half precision, far residues would be elsewhere


class LossSums(NamedTuple):
    """Sums over residues to be told, scalars: what is minimised, and what a model is judged by.

    Of those to be told some are to be seen, and every second of these is true: who knows that they
    are to be told, guesses half of them. So those alone that the model sees as <mask> judge it.

    Attributes
    ----------
    loss, told : cross entropy in nats of all to be told, and their number.
    hidden_loss, hits, hidden : cross entropy, right guesses and number of those that are <mask>.
    """

    loss: Tensor
    told: Tensor
    hidden_loss: Tensor
    hits: Tensor
    hidden: Tensor


def config_of(settings: PretrainSettings) -> EsmConfig:
    """The model's sizes, and what all ESM-2 have in common."""
    return esm_config(
        hidden_size=settings.width, num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads, intermediate_size=settings.ffn_width,
        hidden_dropout_prob=settings.dropout, attention_probs_dropout_prob=settings.dropout,
        max_position_embeddings=settings.context,
    )  # fmt: skip


def new_model(settings: PretrainSettings) -> EsmForMaskedLM:
    """The model that pretraining starts from, by its seed."""
    torch.manual_seed(settings.seed)
    model = EsmForMaskedLM._from_config(config_of(settings), attn_implementation="sdpa")
    model.esm.contact_head.requires_grad_(False)  # learns from contacts, of which there are none
    return model


def loss_sums(model: EsmForMaskedLM, batch: MaskedBatch) -> LossSums:
    """What the model tells of a batch; the output layer works on the residues to be told alone."""
    x_BND = model.esm(batch.tokens, attention_mask=batch.real.long()).last_hidden_state
    logits_MV = model.lm_head(x_BND[batch.masked]).float()
    true_M = batch.true_tokens[batch.masked]
    loss_M = F.cross_entropy(logits_MV, true_M, reduction="none")
    hidden_M = batch.tokens[batch.masked] == MASK
    hits_M = hidden_M & (logits_MV.argmax(dim=1) == true_M)
    hidden_loss = (loss_M * hidden_M).sum()
    return LossSums(loss_M.sum(), batch.masked.sum(), hidden_loss, hits_M.sum(), hidden_M.sum())


def rounded(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors as the file has them."""
    return {
        name: tensor if name == POSITIONS else tensor.to(dtype)
        for name, tensor in tensors.items()
        if name != TIED
    }


def folder_of(
    config: EsmConfig, tensors: dict[str, Tensor], dtype: torch.dtype
) -> dict[str, bytes]:
    """Files of a folder that transformers reads, by their names.

    Parameters
    ----------
    tensors : state of an EsmForMaskedLM.
    """
    stored = {name: tensor.contiguous() for name, tensor in rounded(tensors, dtype).items()}
    config.architectures, config.dtype = [EsmForMaskedLM.__name__], dtype
    return {
        "config.json": config.to_json_string().encode(),
        "model.safetensors": save(stored, metadata={"format": "pt"}),
        "vocab.txt": "\n".join(VOCABULARY).encode(),
    }
