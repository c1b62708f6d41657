"""unimol_tools' Uni-Mol2, filled with weights: tensors only, checked, none left as initialised."""

from __future__ import annotations

import logging
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.encoders.unimol.published_format import without_initialization
from pipeline.encoders.unimol.weights import UNTRAINED_SEED, Weights
from pipeline.encoders.unimol2.library import library
from pipeline.runtime.errors import InputError
from pipeline.runtime.text import some

log = logging.getLogger(__name__)

# What the feature depends on; a published checkpoint has heads of its pretraining besides.
PARTS = ("embed_tokens.", "atom_feature.", "edge_feature.", "se3_invariant_kernel.", "encoder.")
LAYERS = "encoder.layers."


class _NoMovement(nn.Module):
    """In place of the head that moves atoms, which no feature depends on."""

    def forward(self, *_: Any) -> float:
        return 0.0


def load_model(weights: Weights, size: str) -> nn.Module:
    """unimol_tools' model in float32 on the CPU, in evaluation mode.

    Parameters
    ----------
    weights : as `resolve_weights` returns them.
    size : of `weights.PUBLISHED`.

    Raises
    ------
    InputError
        If the file is no checkpoint of tensors, a tensor is missing or misshapen, or it has more
        layers.
    """
    model = _unfilled(size)
    if weights.path is None:
        _initialize(model, UNTRAINED_SEED)
    else:
        tensors = _read(weights.path)
        _check(weights.path, size, model, tensors)
        model.load_state_dict({name: t.float() for name, t in tensors.items()}, strict=False)
    return model.eval()


def check_checkpoint(path: Path, size: str) -> None:
    """Parameters and errors as `load_model`, of the file alone: no tensor of it is read.

    The file is looked at anew only if it has changed.
    """
    status = path.stat()
    _checked(path, size, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _checked(path: Path, size: str, *_version: int) -> None:
    with torch.device("meta"):
        model = _unfilled(size)
    _check(path, size, model, _read(path))


def _unfilled(size: str) -> nn.Module:
    tools = library("models.unimolv2")

    class Model(tools.UniMolV2Model):
        """Without its own loading, which takes what fits and leaves the rest random."""

        def load_pretrained_weights(self, path: str, strict: bool = False) -> None:
            pass

    with without_initialization():
        model = Model(output_dim=1, model_size=size, pretrained_model_path="")
    model.movement_pred_head, model.classification_head = _NoMovement(), nn.Identity()
    return model


def _initialize(model: nn.Module, seed: int) -> None:
    """Random values by which molecules differ; unimol_tools' own start would make all alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0), module.bias.zero_()
                continue
            for name, tensor in module.named_parameters(recurse=False):
                if name == "bias" and isinstance(module, nn.Linear):
                    tensor.zero_()
                else:
                    scale = tensor.shape[-1] ** -0.5 if isinstance(module, nn.Linear) else 0.1
                    tensor.normal_(0.0, scale, generator=generator)
        kernel = model.se3_invariant_kernel.gaussian
        kernel.mul.weight.fill_(1.0), kernel.bias.weight.zero_()


def _read(path: Path) -> dict[str, Tensor]:
    """The encoder's tensors of a checkpoint, in the file until they are used."""
    try:
        checkpoint = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:
        kind = "not safe to load" if zipfile.is_zipfile(path) else "not a torch checkpoint"
        raise InputError(
            f"--weights {path}: {kind} ({type(error).__name__}); a Uni-Mol2 checkpoint holds "
            "tensors only, under the key 'model'"
        ) from None
    state = checkpoint
    for key in ("model", "model_state_dict"):
        if isinstance(checkpoint, dict) and key in checkpoint:
            state = checkpoint[key]
            break
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(f"--weights {path}: no state dict under the key 'model'")
    return {name: tensor for name, tensor in state.items() if name.startswith(PARTS)}


def _check(path: Path, size: str, model: nn.Module, found: dict[str, Tensor]) -> None:
    expected = {n: p for n, p in model.named_parameters() if n.startswith(PARTS)}
    missing = sorted(expected.keys() - found.keys())
    misshapen = sorted(
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    )
    if missing or misshapen:
        fitting = len(expected) - len(missing) - len(misshapen)
        problems = {"missing": missing, "misshapen": misshapen}
        told = "; ".join(f"{len(n)} {what}: {some(n)}" for what, n in problems.items() if n)
        raise InputError(
            f"--weights {path}: {fitting} of {len(expected)} tensors fit the Uni-Mol2 of "
            f"--model_size {size}; {told}"
        )
    others = sorted(found.keys() - model.state_dict().keys())
    depth = len(model.encoder.layers)
    if deeper := [name for name in others if _layer_of(name) >= depth]:
        raise InputError(
            f"--weights {path}: the Uni-Mol2 of --model_size {size} has {depth} layers, and "
            f"there are more in the file ({some(deeper)}); give the --model_size that it is of"
        )
    if others:
        log.warning("%s: %s tensors are not unimol_tools': %s", path, len(others), some(others))


def _layer_of(name: str) -> int:
    """The number of the layer that a tensor is of; -1 if of none."""
    number = name.removeprefix(LAYERS).partition(".")[0] if name.startswith(LAYERS) else ""
    return int(number) if number.isdigit() else -1
