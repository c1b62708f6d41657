"""Uni-Mol checkpoints in the published format: what they must hold, reading, writing."""

from __future__ import annotations

import argparse
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline.encoders.unimol.model import UniMol, UniMolConfig, initialize
from pipeline.encoders.unimol.tokens import TOKEN_ORDERS, Vocabulary
from pipeline.encoders.unimol.weights import UNTRAINED_SEED, Weights
from pipeline.runtime.errors import InputError

log = logging.getLogger(__name__)

# Tensors of the encoder carry these names; everything else in a published checkpoint
# belongs to the heads of its pretraining, which the encoder does not use.
_ENCODER_PREFIXES = ("embed_tokens.", "encoder.", "gbf.", "gbf_proj.")
_PRETRAINING_ONLY = "encoder.final_head_layer_norm."

# How unimol_tools and Uni-Core name the sizes of a model in a checkpoint's "args".
PUBLISHED_SIZES = {
    "layers": "encoder_layers",
    "width": "encoder_embed_dim",
    "ffn_width": "encoder_ffn_embed_dim",
    "heads": "encoder_attention_heads",
}


class CheckedState(NamedTuple):
    """A checkpoint's encoder tensors, all there and of the right shape, and how to read them."""

    config: UniMolConfig
    vocabulary: Vocabulary
    token_order: str
    tensors: dict[str, torch.Tensor]


def read_weights(weights: Weights, token_order: str = "auto") -> CheckedState | None:
    """Read a checkpoint and check it strictly; None for untrained weights.

    Parameters
    ----------
    weights : as `resolve_weights` returns them.
    token_order : "official", "unimol_tools" (see `TOKEN_ORDERS`), or "auto", which finds
        the padding token by its embedding row, the only one that is exactly zero.

    Raises
    ------
    InputError
        If the file is no such checkpoint, or any tensor is missing, unexpected or misshapen.
    """
    if weights.path is None:
        return None
    checkpoint = _read(weights.path)
    tensors = {
        name: tensor
        for name, tensor in checkpoint["model"].items()
        if name.startswith(_ENCODER_PREFIXES) and not name.startswith(_PRETRAINING_ONLY)
    }
    config = _config_of(checkpoint, tensors)
    with without_initialization():
        expected = UniMol(config, pad=0).state_dict()
    _check_state(weights.path, expected, tensors)
    if token_order == "auto":
        token_order = _detect_token_order(tensors["embed_tokens.weight"], weights.path)
    return CheckedState(config, Vocabulary(TOKEN_ORDERS[token_order]), token_order, tensors)


def token_order_of(weights: Weights, token_order: str = "auto") -> str:
    """The order that a checkpoint's tokens have; parameters and errors as `read_weights`.

    The file is read anew only if it has changed.
    """
    if weights.path is None:
        return "official"
    status = weights.path.stat()
    return _token_order_of(weights, token_order, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _token_order_of(weights: Weights, token_order: str, *_version: int) -> str:
    return read_weights(weights, token_order).token_order


def load_model(weights: Weights, token_order: str = "auto") -> tuple[UniMol, Vocabulary]:
    """Build a model in float32 on the CPU and fill it; parameters and errors as `read_weights`."""
    state = read_weights(weights, token_order)
    if state is None:
        vocabulary = Vocabulary()
        model = UniMol(UniMolConfig(), vocabulary.pad)
        return initialize(model, UNTRAINED_SEED).eval().requires_grad_(False), vocabulary
    with without_initialization():
        model = UniMol(state.config, state.vocabulary.pad)
    tensors = {name: tensor.float() for name, tensor in state.tensors.items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False), state.vocabulary


def published_format(config: UniMolConfig, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A state dict as published checkpoints have it: under "model", its sizes under "args"."""
    sizes = asdict(config)
    return {
        "model": tensors,
        "args": {theirs: sizes[ours] for ours, theirs in PUBLISHED_SIZES.items()},
    }


def save_checkpoint(model: UniMol, path: str | Path) -> None:
    """Write a model in the published format."""
    torch.save(published_format(model.config, model.state_dict()), path)


def _read(path: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        kind = "not a torch checkpoint" if not zipfile.is_zipfile(path) else "not safe to load"
        raise InputError(
            f"--weights {path}: {kind} ({type(error).__name__}); "
            "a Uni-Mol checkpoint holds tensors only, under the key 'model'"
        ) from None
    model = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(model, dict) or not all(isinstance(t, torch.Tensor) for t in model.values()):
        raise InputError(f"--weights {path}: no state dict under the key 'model'")
    return checkpoint


def _config_of(checkpoint: dict[str, Any], state: dict[str, torch.Tensor]) -> UniMolConfig:
    """Sizes of the model: from the checkpoint's args, else from its tensors' shapes.

    Without args, a model of the published width must have the published number of layers,
    so that a file that lost its last layers is not taken for a shallower model.
    """
    published = UniMolConfig()
    args = checkpoint.get("args") or {}
    args = vars(args) if isinstance(args, argparse.Namespace) else args
    if all(name in args for name in PUBLISHED_SIZES.values()):
        sizes = {ours: int(args[name]) for ours, name in PUBLISHED_SIZES.items()}
    else:
        width = _size(state, "embed_tokens.weight", 1, published.width)
        layers = {int(name.split(".")[2]) for name in state if name.startswith("encoder.layers.")}
        sizes = {
            "layers": published.layers if width == published.width else max(layers, default=0) + 1,
            "width": width,
            "ffn_width": _size(state, "encoder.layers.0.fc1.weight", 0, published.ffn_width),
            "heads": _size(state, "gbf_proj.linear2.weight", 0, published.heads),
        }
    gaussians = _size(state, "gbf.means.weight", 1, published.gaussians)
    return UniMolConfig(**sizes, gaussians=gaussians, vocabulary=len(Vocabulary()))


def _size(state: dict[str, torch.Tensor], name: str, axis: int, default: int) -> int:
    tensor = state.get(name)
    return tensor.shape[axis] if tensor is not None and tensor.dim() > axis else default


@contextmanager
def without_initialization() -> Iterator[None]:
    """Skip random initialisation, torch's default and others', which takes longer than loading."""
    names = (
        "normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_",
        "xavier_uniform_",
    )  # fmt: skip
    saved = {name: getattr(torch.nn.init, name) for name in names}
    try:
        for name in names:
            setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
        yield
    finally:
        for name, function in saved.items():
            setattr(torch.nn.init, name, function)


def _check_state(
    path: Path, expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]
) -> None:
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    misshapen = sorted(
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    )
    problems = [
        f"{len(names)} {what}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
        for what, names in
        (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]  # fmt: skip
    if problems:
        fitting = len(expected) - len(missing) - len(misshapen)
        raise InputError(
            f"--weights {path}: {fitting} of {len(expected)} tensors fit this Uni-Mol; "
            + "; ".join(problems)
        )


def _detect_token_order(embedding: torch.Tensor, path: Path) -> str:
    zero_rows = set(torch.nonzero(~embedding.any(dim=1)).flatten().tolist())
    for order, special in TOKEN_ORDERS.items():
        if special.index("[PAD]") in zero_rows:
            return order
    log.warning(
        "%s: no special token has a zero embedding row, so its token order is unknown; "
        "assuming that of unimol_tools. Set --token_order to choose.", path,
    )  # fmt: skip
    return "unimol_tools"
