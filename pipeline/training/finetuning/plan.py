"""Finetuning Uni-Mol: what is frozen, what is trained, and where the trunk is cut.

Layers below the cut never change, so what enters the first trained layer (the trunk's
activations) can be computed once and kept. Above the cut a layer may be open (trained), adapted
(its weights fixed, a low-rank update of them trained; LoRA, arXiv:2106.09685) or frozen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from pipeline.encoders.unimol.finetuning.adapters import Adapters, LowRankUpdate, add_adapters
from pipeline.encoders.unimol.model import UniMol
from pipeline.runtime.errors import InputError
from pipeline.training.settings import FinetuneSettings

# Modules of a layer that hold weights, by what --trainable calls them.
LINEARS = {"attention": ("self_attn.in_proj", "self_attn.out_proj"), "ffn": ("fc1", "fc2")}
MODULES = {**LINEARS, "norm": ("self_attn_layer_norm", "final_layer_norm")}
EMBEDDINGS = ("embed_tokens", "gbf", "gbf_proj", "encoder.emb_layer_norm")
EMBEDDING_NORM, FINAL_NORM = "encoder.emb_layer_norm", "encoder.final_layer_norm"


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
