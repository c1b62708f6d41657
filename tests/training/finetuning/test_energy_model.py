"""Layers above the cut with the head: features, gradients and what is kept, against the model."""

from __future__ import annotations

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.detectors.heads.energy_head import EnergyHead
from pipeline.encoders.unimol.batching import Budget, pad_batch
from pipeline.encoders.unimol.engine.forward import build_engine
from pipeline.encoders.unimol.finetuning import top
from pipeline.encoders.unimol.finetuning.adapters import Adapters, merge_adapters
from pipeline.encoders.unimol.finetuning.finetuned import FinetunedEncoder
from pipeline.encoders.unimol.finetuning.top import Top
from pipeline.encoders.unimol.finetuning.trunk import ComputedRows, StoredRows, TokenRows, TrunkRow
from pipeline.encoders.unimol.model import UniMol, UniMolConfig
from pipeline.encoders.unimol.tokens import Vocabulary, tokenize
from pipeline.encoding.in_store.trunk_table import bytes_of, trunk_rows, trunk_table
from pipeline.runtime.errors import InputError
from pipeline.training.finetuning.energy_model import EnergyModel
from pipeline.training.finetuning.plan import open_for_training, plan_finetuning
from pipeline.training.settings import FinetuneSettings
from tests.reference import random_model
from tests.training.finetuning.test_plan import CONFIG, plan

CPU = torch.device("cpu")
ONE_BATCH = Budget(1000, 10**6, 10**8, 10**6)
TINY_BATCHES = Budget(3, 40, 800, 1)


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


def test_the_stored_trunk_is_read_where_arrows_own_buffer_is_refused(base, molecules, monkeypatch):
    made = torch.frombuffer

    def as_with_pyarrow_25(buffer, **how):
        if isinstance(buffer, pa.Buffer):
            raise RuntimeError("could not retrieve buffer from object")
        return made(buffer, **how)

    expected = stored(base, molecules, 1).padded(np.arange(8), CPU)
    monkeypatch.setattr(torch, "frombuffer", as_with_pyarrow_25)
    for tensor, other in zip(stored(base, molecules, 1).padded(np.arange(8), CPU), expected):
        torch.testing.assert_close(tensor, other, rtol=0, atol=0)


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
