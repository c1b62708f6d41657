"""Uni-Mol checkpoints: where they are found, what they must hold, how they are written."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline.encoders.unimol.model import UniMol, UniMolConfig, initialize
from pipeline.encoders.unimol.tokens import TOKEN_ORDERS, Vocabulary
from pipeline.errors import InputError

log = logging.getLogger(__name__)

UNTRAINED = "untrained"
UNTRAINED_SEED = 0
HUB_REPOSITORY = "dptech/Uni-Mol-Models"
NO_HYDROGENS, ALL_HYDROGENS = "mol_pre_no_h_220816.pt", "mol_pre_all_h_220816.pt"
PUBLISHED = (NO_HYDROGENS, ALL_HYDROGENS)
PUBLISHED_SHA256 = {
    NO_HYDROGENS: "da27196af09a8c6d089e10b7764b6a716bcc33da227fc118f5b45b0e484585e9",
}
WEIGHT_DIR_VARIABLE = "UNIMOL_WEIGHT_DIR"

# Tensors of the encoder carry these names; everything else in a published checkpoint
# belongs to the heads of its pretraining, which the encoder does not use.
_ENCODER_PREFIXES = ("embed_tokens.", "encoder.", "gbf.", "gbf_proj.")
_PRETRAINING_ONLY = "encoder.final_head_layer_norm."

# How unimol_tools and Uni-Core name the sizes of a model in a checkpoint's "args".
_ARGS = {
    "layers": "encoder_layers",
    "width": "encoder_embed_dim",
    "ffn_width": "encoder_ffn_embed_dim",
    "heads": "encoder_attention_heads",
}


class Weights(NamedTuple):
    """A resolved `--weights`: its path (None if untrained), SHA-256 and a label for reports."""

    path: Path | None
    sha256: str
    label: str

    @property
    def keeps_hydrogens(self) -> bool:
        """Whether the weights were trained with hydrogens, by the published file's name."""
        return self.path is not None and self.path.name.startswith("mol_pre_all_h")


def resolve_weights(weights: str | None) -> Weights:
    """Find the weights that a setting names.

    Parameters
    ----------
    weights : a path to a checkpoint; or the name of a published one; or None, which means
        the published weights without hydrogens; or "untrained" for seeded random ones.
        A published name is looked for in the folder that UNIMOL_WEIGHT_DIR names, else in
        unimol_tools' own folder and in ~/.cache/molsieve/weights, and downloaded if absent.

    Raises
    ------
    InputError
        If the file is missing, or the download fails or has the wrong SHA-256.
    """
    if weights == UNTRAINED:
        return Weights(None, f"{UNTRAINED}-{UNTRAINED_SEED}", UNTRAINED)
    name = weights or NO_HYDROGENS
    if name in PUBLISHED and not Path(name).is_file():
        path = _find_published(name) or _download(name)
    else:
        path = Path(name).expanduser()
        if not path.is_file():
            raise InputError(
                f"--weights {name}: no such file; give a checkpoint's path, one of "
                f"{', '.join(PUBLISHED)}, or {UNTRAINED}"
            )
    return Weights(path, sha256_of(path), path.name)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weight_folders() -> list[Path]:
    if WEIGHT_DIR_VARIABLE in os.environ:
        return [Path(os.environ[WEIGHT_DIR_VARIABLE]).expanduser()]
    folders = [Path("~/.cache/molsieve/weights").expanduser()]
    spec = importlib.util.find_spec("unimol_tools")  # locates the package, does not import it
    if spec and spec.origin:
        folders.append(Path(spec.origin).parent / "weights")
    return folders


def _find_published(name: str) -> Path | None:
    for folder in _weight_folders():
        path = folder / name
        if path.is_file():
            expected = PUBLISHED_SHA256.get(name)
            if expected and sha256_of(path) != expected:
                log.warning("%s is not the published file: its SHA-256 differs", path)
            return path
    return None


def _download(name: str) -> Path:
    """Fetch a published checkpoint, verify its SHA-256, and only then give it its name."""
    folder = _weight_folders()[0]
    log.info("%s is not on this machine; asking huggingface.co for it", name)
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.utils import logging as hub_logging

        hub_logging.set_verbosity_error()  # its retries are no news; a failure is told below

        expected = PUBLISHED_SHA256.get(name)
        if expected is None:  # the hub names a large file by its SHA-256
            expected = get_hf_file_metadata(hf_hub_url(HUB_REPOSITORY, name), timeout=10).etag
        partial_folder = folder / ".incomplete"
        fetched = Path(
            hf_hub_download(HUB_REPOSITORY, name, local_dir=partial_folder, etag_timeout=10)
        )
    except Exception as error:  # no network, no hub client, no disk: all end in the same advice
        log.debug("download of %s failed", name, exc_info=True)
        raise InputError(
            f"the Uni-Mol weights {name} are not on this machine and could not be downloaded "
            f"({type(error).__name__}). Three ways out: (1) --weights PATH to a copy you have; "
            f"(2) put {name} into {folder} or set {WEIGHT_DIR_VARIABLE} to its folder; "
            f"(3) run once with network access to huggingface.co/{HUB_REPOSITORY}. "
            f"To try the pipeline without them: --weights {UNTRAINED}"
        ) from None
    if sha256_of(fetched) != expected:
        fetched.unlink()
        raise InputError(
            f"the download of {name} has the wrong SHA-256 (expected {expected}) and was "
            "deleted; run again, or fetch the file by hand and pass --weights PATH"
        )
    return fetched.rename(folder / name)


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
    with _without_initialization():
        expected = UniMol(config, pad=0).state_dict()
    _check_state(weights.path, expected, tensors)
    if token_order == "auto":
        token_order = _detect_token_order(tensors["embed_tokens.weight"], weights.path)
    return CheckedState(config, Vocabulary(TOKEN_ORDERS[token_order]), token_order, tensors)


def load_model(weights: Weights, token_order: str = "auto") -> tuple[UniMol, Vocabulary]:
    """Build a model in float32 on the CPU and fill it; parameters and errors as `read_weights`."""
    state = read_weights(weights, token_order)
    if state is None:
        vocabulary = Vocabulary()
        model = UniMol(UniMolConfig(), vocabulary.pad)
        return initialize(model, UNTRAINED_SEED).eval().requires_grad_(False), vocabulary
    with _without_initialization():
        model = UniMol(state.config, state.vocabulary.pad)
    tensors = {name: tensor.float() for name, tensor in state.tensors.items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False), state.vocabulary


def save_checkpoint(model: UniMol, path: str | Path) -> None:
    """Write a model in the published format: tensors under "model", sizes under "args"."""
    sizes = asdict(model.config)
    args = {published: sizes[ours] for ours, published in _ARGS.items()}
    torch.save({"model": model.state_dict(), "args": args}, path)


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
    if all(name in args for name in _ARGS.values()):
        sizes = {ours: int(args[name]) for ours, name in _ARGS.items()}
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
def _without_initialization() -> Iterator[None]:
    """Skip torch's default random initialisation, which takes longer than the loading."""
    names = ("normal_", "uniform_", "kaiming_uniform_")
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
