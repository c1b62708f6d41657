"""Finetuning Uni-Mol: what is frozen, what is trained, and where the trunk is cut.

Layers below the cut never change, so what enters the first trained layer (the trunk's
activations) can be computed once and kept. Above the cut a layer may be open (trained), adapted
(its weights fixed, a low-rank update of them trained; LoRA, arXiv:2106.09685) or frozen.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.config import FinetuneSettings
from pipeline.encoders.unimol.model import UniMol
from pipeline.errors import InputError

# Modules of a layer that hold weights, by what --trainable calls them.
LINEARS = {"attention": ("self_attn.in_proj", "self_attn.out_proj"), "ffn": ("fc1", "fc2")}
MODULES = {**LINEARS, "norm": ("self_attn_layer_norm", "final_layer_norm")}
EMBEDDINGS = ("embed_tokens", "gbf", "gbf_proj", "encoder.emb_layer_norm")
EMBEDDING_NORM, FINAL_NORM = "encoder.emb_layer_norm", "encoder.final_layer_norm"


@dataclass(frozen=True)
class Adapters:
    """Low-rank updates of linear modules, by the modules' names."""

    modules: tuple[str, ...]
    rank: int
    alpha: float


@dataclass(frozen=True)
class FinetunePlan:
    """What is trained of a Uni-Mol.

    Attributes
    ----------
    cut : the first layer with anything to train; what lies below it is the trunk.
    from_tokens : whether the embeddings are trained too, so that there is no trunk.
    frozen_layers : layers that stay in evaluation mode.
    modules : names of the modules whose own parameters are trained.
    adapters : the low-rank updates; None without them.
    """

    cut: int
    from_tokens: bool
    frozen_layers: frozenset[int]
    modules: tuple[str, ...]
    adapters: Adapters | None


def parse_layers(text: str, layers: int, flag: str) -> frozenset[int]:
    """Layers that a setting names: ranges and numbers as in "0-9,11", or "none".

    Parameters
    ----------
    layers : how many layers the encoder has.
    flag : the setting's name, for errors.

    Raises
    ------
    InputError
        If it is written otherwise, a range runs backwards, or a layer does not exist.
    """
    if text.strip().lower() == "none":
        return frozenset()
    named: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise InputError(
                f"--{flag} {text}: {part.strip()!r} is neither a layer nor a range; write layers "
                "as 0-12, as 0-9,11 or none"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"--{flag} {text}: the range {part.strip()} runs backwards")
        if last >= layers:
            raise InputError(
                f"--{flag} {text}: there is no layer {last}; this encoder has layers 0-{layers - 1}"
            )
        named |= set(range(first, last + 1))
    return frozenset(named)


def plan_finetuning(settings: FinetuneSettings, layers: int) -> FinetunePlan:
    """What the settings mean for an encoder of so many layers.

    Raises
    ------
    InputError
        If a setting names layers that cannot be, nothing would be trained, or LoRA is asked for
        where there are no matrices.
    """
    frozen = parse_layers(settings.freeze_layers, layers, "freeze_layers")
    opened = [layer for layer in range(layers) if layer not in frozen]
    kinds = MODULES if settings.trainable == "all" else {settings.trainable}
    if settings.adapter == "lora":
        return _adapted(settings, frozen, opened, layers)
    if not opened:
        raise InputError(
            f"--freeze_layers {settings.freeze_layers}: every layer is frozen; open one, or leave "
            "--finetune_encoder out"
        )
    modules = [
        f"encoder.layers.{layer}.{name}"
        for layer in opened for kind in kinds for name in MODULES[kind]
    ]  # fmt: skip
    if "norm" in kinds:
        modules.append(FINAL_NORM)
    from_tokens = 0 in opened and settings.trainable in ("all", "norm")
    if from_tokens:
        modules += EMBEDDINGS if settings.trainable == "all" else (EMBEDDING_NORM,)
    return FinetunePlan(opened[0], from_tokens, frozen, tuple(modules), None)


def _adapted(
    settings: FinetuneSettings, frozen: frozenset[int], opened: list[int], layers: int
) -> FinetunePlan:
    if settings.trainable == "norm":
        raise InputError("--adapter lora adapts matrices, and --trainable norm leaves none")
    named = settings.lora_layers
    adapted = opened if named is None else sorted(parse_layers(named, layers, "lora_layers"))
    if not adapted:
        raise InputError("--adapter lora: no layer is left to adapt; see --lora_layers")
    kinds = LINEARS if settings.trainable == "all" else {settings.trainable}
    modules = tuple(
        f"encoder.layers.{layer}.{name}"
        for layer in adapted for kind in kinds for name in LINEARS[kind]
    )  # fmt: skip
    adapters = Adapters(modules, settings.lora_rank, settings.lora_alpha)
    return FinetunePlan(adapted[0], False, frozen - set(adapted), (), adapters)


class LowRankUpdate(nn.Module):
    """W + (alpha / rank) B·A, with A random and B zero at the start.

    Parameters
    ----------
    weight : (out, in), the matrix that is updated.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float):
        super().__init__()
        out_width, in_width = weight.shape
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, in_width))
        self.up = nn.Parameter(torch.zeros(out_width, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The updated matrix (out, in)."""
        return weight + self.scale * (self.up @ self.down)


def add_adapters(model: UniMol, adapters: Adapters) -> None:
    """Put a low-rank update on each module's weight, which itself no longer trains."""
    for name in adapters.modules:
        module = model.get_submodule(name)
        update = LowRankUpdate(module.weight, adapters.rank, adapters.alpha)
        parametrize.register_parametrization(module, "weight", update)


def merge_adapters(model: UniMol, adapters: Adapters) -> None:
    """Replace each adapted weight by its updated value."""
    for name in adapters.modules:
        parametrize.remove_parametrizations(model.get_submodule(name), "weight")


def open_for_training(model: UniMol, plan: FinetunePlan) -> dict[str, nn.Parameter]:
    """Add the adapters, let exactly what the plan trains need gradients, and return it by name."""
    model.requires_grad_(False)
    for name in plan.modules:
        model.get_submodule(name).requires_grad_(True)
    if plan.adapters is not None:
        add_adapters(model, plan.adapters)
        for module in model.modules():
            if isinstance(module, LowRankUpdate):
                module.requires_grad_(True)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@dataclass(frozen=True)
class FinetunedEncoder:
    """What finetuning made of an encoder: the trained tensors, and what they belong to.

    Attributes
    ----------
    tensors : by the names that `open_for_training` gives them.
    adapters : of the plan.
    base_weights : what the training run's --weights named.
    base_sha256 : the SHA-256 of those weights.
    token_order : what the training run's --token_order named.
    sha256 : that of the trained tensors' file.
    """

    tensors: dict[str, Tensor]
    adapters: Adapters | None
    base_weights: str | None
    base_sha256: str
    token_order: str
    sha256: str

    @property
    def config(self) -> dict[str, Any]:
        """Everything but the tensors, JSON-ready; `of` reads it back."""
        adapters = None if self.adapters is None else asdict(self.adapters)
        return {
            "adapters": adapters,
            "base_weights": self.base_weights,
            "base_sha256": self.base_sha256,
            "token_order": self.token_order,
            "sha256": self.sha256,
        }

    @classmethod
    def of(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> FinetunedEncoder:
        """From a checkpoint's config and tensors."""
        adapters = config["adapters"]
        if adapters is not None:
            adapters = Adapters(**{**adapters, "modules": tuple(adapters["modules"])})
        return cls(tensors, **{**config, "adapters": adapters})

    def identity_over(self, base: dict[str, Any]) -> dict[str, Any]:
        """The identity of the finetuned encoder, given that of its base; errors as `apply`."""
        self._check_base(base["weights_sha256"])
        label = f"{base['weights']}, finetuned"
        return {**base, "weights": label, "finetuned_sha256": self.sha256}

    def apply(self, model: UniMol, weights_sha256: str) -> None:
        """Give a model that holds the base weights the trained tensors, adapters merged.

        Raises
        ------
        InputError
            If the weights are not those that were finetuned, or a tensor does not fit.
        """
        self._check_base(weights_sha256)
        try:
            if self.adapters is not None:
                add_adapters(model, self.adapters)
            _, unknown = model.load_state_dict(self.tensors, strict=False)
        except (RuntimeError, AttributeError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"the finetuned tensors do not fit: {error}") from None
        if unknown:
            raise InputError(f"the finetuned tensors do not fit: no {', '.join(unknown[:3])}")
        if self.adapters is not None:
            merge_adapters(model, self.adapters)
        model.eval().requires_grad_(False)

    def _check_base(self, weights_sha256: str) -> None:
        if weights_sha256 != self.base_sha256:
            raise InputError(
                f"the checkpoint was finetuned from weights with the SHA-256 {self.base_sha256}, "
                f"those given have {weights_sha256}; give the former with --weights"
            )
