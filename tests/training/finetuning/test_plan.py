"""What is frozen, what is trained, where the cut is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.encoders.unimol.model import UniMol, UniMolConfig
from pipeline.runtime.errors import InputError
from pipeline.training.finetuning.plan import open_for_training, parse_layers, plan_finetuning
from pipeline.training.settings import FinetuneSettings

CONFIG = UniMolConfig(layers=5, width=64, ffn_width=128, heads=8, gaussians=16)


def plan(**changes: Any):
    return plan_finetuning(FinetuneSettings(**{"freeze_layers": "0-2", **changes}), CONFIG.layers)


# --- layers, as they are written -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("0-12", set(range(13))),
        ("0-9,11", {*range(10), 11}),
        ("none", set()),
        (" 1 , 3 - 4 ", {1, 3, 4}),
        ("7", {7}),
        ("1-1", {1}),
    ],
)
def test_layers_are_ranges_and_numbers(text, layers):
    assert parse_layers(text, 15, "freeze_layers") == layers


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("3-20", "no layer 20; this encoder has layers 0-14"),
        ("a-b", "'a-b' is neither a layer nor a range"),
        ("4-2", "runs backwards"),
        ("", "neither"),
        ("1,,2", "neither"),
        ("-3", "neither"),
        ("1.5", "neither"),
    ],
)
def test_nonsense_is_refused_in_one_line(text, told):
    with pytest.raises(InputError, match=f"--freeze_layers .*{told}"):
        parse_layers(text, 15, "freeze_layers")


# --- the plan --------------------------------------------------------------------------------


def trained(**changes: Any) -> set[str]:
    return set(open_for_training(UniMol(CONFIG, 0), plan(**changes)))


def test_the_published_recipe_trains_the_last_two_layers_and_the_final_norm():
    settings = FinetuneSettings(freeze_layers="0-12")
    with torch.device("meta"):
        model = UniMol(UniMolConfig(), 0)
    total = sum(p.numel() for p in model.parameters())
    names = open_for_training(model, plan_finetuning(settings, 15))
    assert {".".join(n.split(".")[:3]) for n in names} == {
        "encoder.layers.13", "encoder.layers.14", "encoder.final_layer_norm.weight",
        "encoder.final_layer_norm.bias",
    }  # fmt: skip
    # 12 D² + 13 D a layer (D = 512, FFN 4 D), and the final norm.
    expected = 2 * (12 * 512**2 + 13 * 512) + 2 * 512
    assert sum(p.numel() for p in names.values()) == expected
    assert 0.13 < expected / total < 0.14


def test_layer_1_is_not_taken_for_layers_10_to_14():
    settings = FinetuneSettings(freeze_layers="1")
    plan_of_15 = plan_finetuning(settings, 15)
    assert not any(name.startswith("encoder.layers.1.") for name in plan_of_15.modules)
    assert any(name.startswith("encoder.layers.10.") for name in plan_of_15.modules)


def test_the_cut_is_the_first_trained_layer_whatever_is_frozen_above_it():
    assert plan(freeze_layers="0-1,3").cut == 2
    assert plan(freeze_layers="0-1,3").frozen_layers == {0, 1, 3}
    assert not any("layers.3." in name for name in trained(freeze_layers="0-1,3"))
    assert plan(freeze_layers="none").cut == 0


def test_embeddings_train_with_the_first_layer_alone():
    assert plan(freeze_layers="none").from_tokens
    everything = {name for name, _ in UniMol(CONFIG, 0).named_parameters()}
    assert trained(freeze_layers="none") == everything
    assert not plan(freeze_layers="none", trainable="attention").from_tokens
    assert not any(name.startswith(("embed", "gbf")) for name in trained(freeze_layers="0"))


@pytest.mark.parametrize(
    ("trainable", "parts"),
    [
        ("attention", {"self_attn"}),
        ("ffn", {"fc1", "fc2"}),
        ("norm", {"self_attn_layer_norm", "final_layer_norm"}),
        ("all", {"self_attn", "fc1", "fc2", "self_attn_layer_norm", "final_layer_norm"}),
    ],
)
def test_parts_of_the_open_layers_are_trained(trainable, parts):
    names = trained(trainable=trainable)
    assert {n.split(".")[3] for n in names if n.startswith("encoder.layers.")} == parts
    assert ("encoder.final_layer_norm.weight" in names) == (trainable in ("all", "norm"))


def test_lora_trains_updates_alone_and_moves_the_cut_to_the_lowest():
    assert plan(adapter="lora").cut == 3
    low = plan(adapter="lora", lora_layers="1,4")
    assert low.cut == 1 and low.frozen_layers == {0, 2}
    names = trained(adapter="lora", lora_layers="1,4", trainable="ffn")
    assert len(names) == 2 * 2 * 2 and all("parametrizations" in n for n in names)
    assert {n.split(".")[2] for n in names} == {"1", "4"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"freeze_layers": "0-4"}, "every layer is frozen"),
        ({"adapter": "lora", "trainable": "norm"}, "norm leaves none"),
        ({"adapter": "lora", "freeze_layers": "0-4"}, "no layer is left"),
        ({"adapter": "lora", "lora_layers": "9"}, "--lora_layers 9: there is no layer 9"),
    ],
)
def test_plans_that_cannot_be_are_refused(changes, told):
    with pytest.raises(InputError, match=told):
        plan(**changes)
