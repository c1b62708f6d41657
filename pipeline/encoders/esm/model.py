"""transformers' ESM-2, filled with weights; and the mean over residues."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import EsmConfig, EsmModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from pipeline.encoders.esm.tokens import CLS, EOS, MASK, PAD, SPECIAL, VOCABULARY
from pipeline.encoders.esm.weights import EsmWeights
from pipeline.encoders.unimol.weights import UNTRAINED_SEED
from pipeline.runtime.errors import InputError

M = TypeVar("M", bound=PreTrainedModel)

# Shapes: B sequences, N tokens of the longest, D width.

UNTRAINED_CONFIG = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
}  # fmt: skip
# What features do without: heads within the base model, and constants that its class makes itself.
UNUSED = ("contact_head.", "pooler.", "inv_freq", "position_ids", "position_embeddings")
BASE = ("embeddings.", "encoder.")  # tensors of the base model; beside it lie heads of other tasks


def esm_config(**settings: Any) -> EsmConfig:
    """The configuration of an ESM-2 of other sizes, or with dropout; see `UNTRAINED_CONFIG`."""
    usual = {
        "vocab_size": len(VOCABULARY), "pad_token_id": PAD, "mask_token_id": MASK,
        "bos_token_id": CLS, "eos_token_id": EOS, "position_embedding_type": "rotary",
        "token_dropout": True, "emb_layer_norm_before": False, "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    return EsmConfig(**{**usual, **settings})


def load_model(weights: EsmWeights) -> EsmModel:
    """ESM-2 in float32 on the CPU, ready to be asked.

    Raises
    ------
    InputError
        If tensors are missing, misshapen, or cannot be read without running code.
    """
    if weights.folder is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(UNTRAINED_SEED)
            config = esm_config(**UNTRAINED_CONFIG)
            config._attn_implementation = "sdpa"
            return EsmModel(config, add_pooling_layer=False).eval()
    return read_model(EsmModel, weights, attn_implementation="sdpa", add_pooling_layer=False)


def read_model(
    kind: type[M], weights: EsmWeights, what: str = "ESM-2", *, flag: str = "weights",
    adapt: Callable[[EsmConfig], None] = lambda config: None, **how: Any,
) -> M:  # fmt: skip
    """A model of transformers in float32 on the CPU, ready to be asked, with all its tensors.

    Parameters
    ----------
    kind : its class.
    weights : its folder.
    what, flag : the model's name, and the setting that named the folder.
    adapt : changes the configuration that the folder has.
    how : more of `from_pretrained`.

    Raises
    ------
    InputError
        If tensors are missing, misshapen, or cannot be read without running code.
    """
    at = f"--{flag} {weights.folder}"
    safe = all(path.suffix == ".safetensors" for path in weights.files)
    try:
        with _quiet():
            config = EsmConfig.from_pretrained(weights.folder, local_files_only=True)
            adapt(config)
            model, told = kind.from_pretrained(
                weights.folder, config=config, dtype=torch.float32, use_safetensors=safe,
                weights_only=True, local_files_only=True, output_loading_info=True,
                ignore_mismatched_sizes=True, **how,
            )  # fmt: skip
    except Exception as error:  # each file format has errors of its own
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"{at}: cannot be read as {what}: {type(error).__name__}: {reason}"
        ) from None
    _check_complete(told, at, what)
    return model.eval()


def _check_complete(told: dict[str, Any], at: str, what: str) -> None:
    """InputError if the file's tensors are not those of the model that its configuration says.

    Parameters
    ----------
    told : of `from_pretrained`.
    at : where the file is.
    what : the model.
    """
    faults = {
        "missing": told["missing_keys"],
        "of another shape": [name for name, *_ in told["mismatched_keys"]],
        "of no use": [
            name for name in told["unexpected_keys"] if name.removeprefix("esm.").startswith(BASE)
        ],
    }
    for fault, names in faults.items():
        names = sorted(name for name in names if not any(part in name for part in UNUSED))
        if names:
            raise InputError(
                f"{at}: tensors are {fault} to the {what} that its config.json describes: "
                f"{len(names)}, such as {names[0]}"
            )


def mean_over_residues(hidden_BND: Tensor, lengths_B: Tensor) -> Tensor:
    """Each sequence's mean over its residues, <cls> and <eos> left out: (B, D).

    Parameters
    ----------
    lengths_B : tokens of each sequence, <cls> and <eos> among them; padding follows.
    """
    residues_B = lengths_B - SPECIAL
    place_N = torch.arange(hidden_BND.shape[1], device=hidden_BND.device)
    mask_BN = (place_N >= 1) & (place_N <= residues_B[:, None])
    return (hidden_BND * mask_BN[:, :, None]).sum(dim=1) / residues_B[:, None]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bar, and its table of heads that are left out."""
    level = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
