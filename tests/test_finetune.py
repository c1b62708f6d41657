"""What is frozen, what is trained, where the cut is; the layers above it against the model."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import FinetuneSettings
from pipeline.encoders.unimol import top
from pipeline.encoders.unimol.batching import Budget, pad_batch
from pipeline.encoders.unimol.engine import build_engine
from pipeline.encoders.unimol.model import UniMol, UniMolConfig
from pipeline.encoders.unimol.tokens import Vocabulary, tokenize
from pipeline.encoders.unimol.top import Top
from pipeline.encoders.unimol.trunk import ComputedRows, StoredRows, TokenRows, TrunkRow
from pipeline.energy import EnergyHead
from pipeline.energy_model import EnergyModel
from pipeline.errors import InputError
from pipeline.finetune import (
    Adapters,
    FinetunedEncoder,
    merge_adapters,
    open_for_training,
    parse_layers,
    plan_finetuning,
)
from pipeline.trunk import bytes_of, trunk_rows, trunk_table
from tests.reference import random_model

CPU = torch.device("cpu")
CONFIG = UniMolConfig(layers=5, width=64, ffn_width=128, heads=8, gaussians=16)
ONE_BATCH = Budget(1000, 10**6, 10**8, 10**6)
TINY_BATCHES = Budget(3, 40, 800, 1)


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


# --- the layers above the cut ----------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> UniMol:
    return random_model(CONFIG)


@pytest.fixture(scope="module")
def molecules():
    rng = np.random.default_rng(0)
    return [
        tokenize(rng.choice([6, 7, 8], n).astype(np.uint8), rng.normal(0, 2, (n, 3)), Vocabulary())
        for n in (3, 14, 5, 9, 9, 21, 4, 7)
    ]


def engine_of(model: UniMol):
    return build_engine(copy.deepcopy(model), torch.float32, CPU)


def computed(base, molecules, cut) -> ComputedRows:
    return ComputedRows(molecules, base.pad, engine_of(base), cut)


def stored(base, molecules, cut, precision="fp32") -> StoredRows:
    """Through the store's table, as training reads them."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    tokens, coords = pad_batch(molecules, base.pad)
    _, x, pair = engine_of(base).with_trunk(tokens, coords, cut, dtype)
    sizes = [len(m.tokens) for m in molecules]
    rows = [TrunkRow(x[i, :n], pair[i, :, :n, :n]) for i, n in enumerate(sizes)]
    table = trunk_table([str(i) for i in range(len(rows))], rows)
    written = sum(len(cell.as_buffer()) for name in ("x", "pair") for cell in table[name])
    assert written == bytes_of(np.array(sizes), CONFIG, precision)
    return trunk_rows(table, precision)


def energy_model(base, the_plan, budget=ONE_BATCH, dropout=0.0, checkpointing=False) -> EnergyModel:
    model = copy.deepcopy(base)
    torch.manual_seed(3)
    open_for_training(model, the_plan)
    top = Top(model, the_plan.cut, the_plan.frozen_layers, dropout, the_plan.from_tokens)
    head = EnergyHead(CONFIG.width, 32, dropout)
    return EnergyModel(top, head, budget, torch.float32, checkpointing)


def gradients(model: EnergyModel, rows) -> dict[str, torch.Tensor]:
    model.train()
    energies = model(rows)
    (energies * torch.linspace(-1, 1, len(energies))).sum().backward()
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def assert_close(made: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], relative: float):
    """One step's gradient, all parameters as one vector; and none of them out of proportion."""
    assert made.keys() == expected.keys()
    whole = sum(tensor.square().sum() for tensor in expected.values()).sqrt()
    errors = {name: (made[name] - tensor).norm() for name, tensor in expected.items()}
    assert sum(error.square() for error in errors.values()).sqrt() / whole < relative
    for name, error in errors.items():
        assert error / (expected[name].norm() + 1e-3 * whole) < 4 * relative, name


@pytest.mark.parametrize("cut", [0, 1, 3, 4])
def test_features_are_the_models_whatever_the_cut(base, molecules, cut):
    tokens, coords = pad_batch(molecules, base.pad)
    expected = base(tokens, coords)
    top = Top(copy.deepcopy(base), cut, frozenset(), 0.1, False).eval()
    for rows in (computed(base, molecules, cut), stored(base, molecules, cut)):
        made = top(*rows.padded(np.arange(len(molecules)), CPU))
        np.testing.assert_allclose(made.detach(), expected, atol=2e-5)
    with_trunk, *_ = engine_of(base).with_trunk(tokens, coords, cut, torch.float32)
    np.testing.assert_allclose(with_trunk, expected, atol=2e-5)


def reference_gradients(base, the_plan, molecules) -> dict[str, torch.Tensor]:
    """By torch's autograd through the whole plain model."""
    ours = energy_model(base, the_plan)
    model = copy.deepcopy(base)
    torch.manual_seed(3)
    parameters = open_for_training(model, the_plan)
    head = ours.head
    energies = head(model(*pad_batch(molecules, base.pad)))
    (energies * torch.linspace(-1, 1, len(energies))).sum().backward()
    made = {f"top.model.{name}": p.grad for name, p in parameters.items()}
    return made | {f"head.{name}": p.grad for name, p in head.named_parameters()}


@pytest.mark.parametrize(
    "changes",
    [{}, {"freeze_layers": "0-1,3"}, {"trainable": "norm"}, {"adapter": "lora"},
     {"adapter": "lora", "lora_layers": "1-2"}],
)  # fmt: skip
def test_a_steps_gradients_are_the_models_with_and_without_the_stored_trunk(
    base, molecules, changes
):
    the_plan = plan(**changes)
    expected = reference_gradients(base, the_plan, molecules)
    cut = the_plan.cut
    for rows, relative in (
        (stored(base, molecules, cut), 1e-5),
        (computed(base, molecules, cut), 1e-5),
        (stored(base, molecules, cut, "bf16"), 1e-2),
    ):
        assert_close(gradients(energy_model(base, the_plan), rows), expected, relative)


def test_pairs_stay_in_float32_under_autocast(base, molecules, monkeypatch):
    """As in the engine, which encodes with the layers afterwards."""
    seen = []
    model = energy_model(base, plan(freeze_layers="none"))
    model.dtype = torch.bfloat16
    original = top.layer_for_training
    monkeypatch.setattr(
        top,
        "layer_for_training",
        lambda layer, x, pair, *rest: (
            seen.append((x.dtype, pair.dtype)) or original(layer, x, pair, *rest)
        ),
    )
    model(TokenRows(molecules, base.pad))
    assert seen == [(torch.float32, torch.float32)] * CONFIG.layers


def test_with_trained_embeddings_the_gradients_are_the_models(base, molecules):
    the_plan = plan(freeze_layers="none")
    expected = reference_gradients(base, the_plan, molecules)
    rows = TokenRows(molecules, base.pad)
    assert_close(gradients(energy_model(base, the_plan), rows), expected, 1e-5)


def test_micro_batches_and_checkpointing_change_no_gradient(base, molecules):
    the_plan, rows = plan(), stored(base, molecules, 3)
    expected = gradients(energy_model(base, the_plan), rows)
    small = energy_model(base, the_plan, TINY_BATCHES)
    assert_close(gradients(small, rows), expected, 1e-5)
    assert_close(
        gradients(energy_model(base, the_plan, TINY_BATCHES, checkpointing=True), rows),
        expected, 1e-5,
    )  # fmt: skip


def test_checkpointing_repeats_the_dropout_of_the_forward_pass(base, molecules):
    rows, made = stored(base, molecules, 3), []
    for checkpointing in (False, True):
        model = energy_model(base, plan(), TINY_BATCHES, 0.3, checkpointing)
        torch.manual_seed(11)
        made.append(gradients(model, rows))
    assert_close(made[1], made[0], 1e-5)


def test_a_frozen_layer_above_the_cut_has_no_dropout(base, molecules):
    rows = computed(base, molecules, 2).padded(np.arange(4), CPU)

    def spread(frozen: frozenset[int]) -> float:
        top = Top(copy.deepcopy(base), 2, frozen, 0.5, False).train()
        return (top(*rows) - top(*rows)).abs().max().item()

    assert spread(frozenset({0, 1, 2, 3, 4})) == 0
    assert spread(frozenset({0, 1, 3})) > 0


def test_an_empty_share_of_a_batch_has_a_gradient_of_zero(base, molecules):
    model = energy_model(base, plan())
    energies = model(stored(base, molecules, 3)[:0])
    assert energies.shape == (0,)
    energies.sum().backward()
    assert all(not p.grad.any() for p in model.head.parameters())


# --- what finetuning leaves ------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"adapter": "lora"}, {"freeze_layers": "none"}])
def test_trained_tensors_applied_to_the_base_give_the_trained_model(base, molecules, changes):
    the_plan = plan(**changes)
    model = copy.deepcopy(base)
    names = open_for_training(model, the_plan)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in names.values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    expected = model(*pad_batch(molecules, base.pad))
    tensors = {name: p.detach().clone() for name, p in names.items()}
    made = FinetunedEncoder(tensors, the_plan.adapters, None, "sha", "auto", "file")
    again = FinetunedEncoder.of(made.config, tensors)
    target = copy.deepcopy(base)
    assert not torch.allclose(target(*pad_batch(molecules, base.pad)), expected, atol=1e-2)
    again.apply(target, "sha")
    np.testing.assert_allclose(
        target(*pad_batch(molecules, base.pad)), expected.detach(), atol=1e-5
    )
    assert target.state_dict().keys() == base.state_dict().keys()


def test_other_weights_or_tensors_are_refused(base):
    model = copy.deepcopy(base)
    names = open_for_training(model, plan())
    tensors = {name: p.detach() for name, p in names.items()}
    with pytest.raises(InputError, match="finetuned from weights with the SHA-256 one"):
        FinetunedEncoder(tensors, None, None, "one", "auto", "file").apply(
            copy.deepcopy(base), "other"
        )
    smaller = UniMol(UniMolConfig(layers=2, width=64, ffn_width=128, heads=8, gaussians=16), 0)
    odd = Adapters(("encoder.layers.3.fc1",), 0, 1.0)
    with pytest.raises(InputError, match="do not fit"):
        FinetunedEncoder({}, odd, None, "one", "auto", "file").apply(copy.deepcopy(base), "one")
    with pytest.raises(InputError, match="do not fit"):
        FinetunedEncoder(tensors, None, None, "one", "auto", "file").apply(smaller, "one")


def test_merging_leaves_a_plain_matrix(base):
    model, the_plan = copy.deepcopy(base), plan(adapter="lora")
    open_for_training(model, the_plan)
    merge_adapters(model, the_plan.adapters)
    assert model.state_dict().keys() == base.state_dict().keys()
    for name, tensor in base.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor)


def test_on_the_published_shape_a_step_is_the_models(molecules):
    """The whole recipe once: 15 layers, 0-12 frozen, the trunk stored and computed."""
    full = random_model(UniMolConfig())
    settings = FinetuneSettings()
    the_plan = plan_finetuning(settings, 15)
    few = molecules[:4]
    tokens, coords = pad_batch(few, full.pad)
    head = EnergyHead(512, 32, 0.0)

    def gradient(features, names) -> torch.Tensor:
        head(features).square().mean().backward()
        return torch.cat([names[n].grad.flatten() for n in sorted(names)])

    model = copy.deepcopy(full)
    names = open_for_training(model, the_plan)
    expected = gradient(model(tokens, coords), names)
    engine = engine_of(full)
    _, x, pair = engine.with_trunk(tokens, coords, the_plan.cut, torch.float32)
    sizes = [len(m.tokens) for m in few]
    kept = StoredRows([TrunkRow(x[i, :n], pair[i, :, :n, :n]) for i, n in enumerate(sizes)])
    for rows in (kept, ComputedRows(few, full.pad, engine, the_plan.cut)):
        model = copy.deepcopy(full)
        names = open_for_training(model, the_plan)
        top = Top(model, the_plan.cut, the_plan.frozen_layers, 0.0, the_plan.from_tokens)
        made = gradient(top(*rows.padded(np.arange(4), CPU)), names)
        assert (made - expected).norm() / expected.norm() < 1e-5
