"""Masks, losses and gradients of pretraining equal those of unimol_tools.pretrain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from unimol_tools.data.dictionary import Dictionary
from unimol_tools.pretrain.dataset import apply_noise_and_mask
from unimol_tools.pretrain.loss import UniMolLoss
from unimol_tools.pretrain.pretrain_config import ModelConfig
from unimol_tools.pretrain.unimol import UniMolModel

from pipeline.encoders.unimol.model import GaussianFeatures, UniMolConfig
from pipeline.encoders.unimol.pretraining.masking import MaskRecipe, mask_batch, mask_molecule
from pipeline.encoders.unimol.pretraining.objective import (
    LossSums,
    LossWeights,
    PretrainingUniMol,
    TrainedGaussians,
    mean_losses,
    start,
    total_loss,
)
from pipeline.encoders.unimol.tokens import TOKEN_ORDERS, Vocabulary, tokenize
from tests.reference import write_dictionary

CONFIG = UniMolConfig(layers=3, width=32, ffn_width=64, heads=4)
VOCABULARY = Vocabulary(TOKEN_ORDERS["unimol_tools"])


@pytest.fixture(scope="module")
def dictionary(tmp_path_factory) -> Dictionary:
    """unimol_tools' own, as it reads the published file."""
    made = Dictionary.load(str(write_dictionary(tmp_path_factory.mktemp("dictionary"))))
    made.add_symbol("[MASK]", is_special=True)
    return made


@pytest.fixture(scope="module")
def molecules() -> list:
    """Ten molecules of 5 to 41 atoms, every element of the dictionary among them."""
    rng = np.random.default_rng(0)
    numbers = [6, 7, 8, 16, 17, 9, 35, 53, 14, 15, 5, 11, 26, 79]
    return [
        tokenize(
            rng.choice(numbers, size).astype(np.uint8),
            rng.normal(size=(size, 3)).astype(np.float32) * 3,
            VOCABULARY,
        )
        for size in range(5, 45, 4)
    ]


@pytest.fixture(scope="module")
def batch(molecules):
    spoiled = [
        mask_molecule(m, VOCABULARY, MaskRecipe(), np.random.RandomState(i))
        for i, m in enumerate(molecules)
    ]
    return mask_batch(molecules, spoiled, VOCABULARY.pad)


@pytest.fixture
def model() -> PretrainingUniMol:
    """In training mode, with dropout left out so that it can be repeated."""
    return start(PretrainingUniMol(CONFIG, VOCABULARY.pad, dropout=0.0), seed=0)


@pytest.mark.parametrize(
    "recipe",
    [MaskRecipe(), MaskRecipe(0.5, 0.3, 0.3, 2.0), MaskRecipe(random=0), MaskRecipe(unmasked=0)],
)
def test_masks_equal_those_of_unimol_tools_draw_for_draw(molecules, dictionary, recipe):
    assert VOCABULARY.symbols == tuple(dictionary.symbols)
    for seed, molecule in enumerate(molecules):
        made = mask_molecule(molecule, VOCABULARY, recipe, np.random.RandomState(seed))
        np.random.seed(seed)
        tokens, coords, targets = apply_noise_and_mask(
            torch.from_numpy(molecule.tokens[1:-1]),
            torch.from_numpy(molecule.coords[1:-1]),
            dictionary,
            dictionary.index("[MASK]"),
            "uniform",
            noise=recipe.noise,
            mask_prob=recipe.masked,
            leave_unmasked_prob=recipe.unmasked,
            random_token_prob=recipe.random,
        )
        assert made.tokens[1:-1].tolist() == tokens.tolist()
        np.testing.assert_allclose(made.coords[1:-1], coords.numpy(), atol=1e-6)
        assert made.masked[1:-1].tolist() == targets.ne(dictionary.pad()).tolist()
        ends = [0, -1]
        assert (made.tokens[ends] == molecule.tokens[ends]).all() and not made.masked[ends].any()


def reference_of(batch, model, dictionary) -> tuple[torch.Tensor, dict, UniMolModel]:
    """unimol_tools' loss of the same batch by a model with the same weights."""
    sizes = ModelConfig(
        encoder_layers=CONFIG.layers, encoder_embed_dim=CONFIG.width,
        encoder_ffn_embed_dim=CONFIG.ffn_width, encoder_attention_heads=CONFIG.heads,
        dropout=0.0, emb_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    theirs = UniMolModel(sizes, dictionary)
    assert theirs.load_state_dict(model.state_dict(), strict=True)
    tokens, coords = batch.tokens, batch.coords
    inputs = {
        "src_tokens": tokens,
        "src_coord": coords,
        "src_distance": (coords[:, :, None] - coords[:, None]).norm(dim=-1),
        "src_edge_type": tokens[:, :, None] * len(dictionary) + tokens[:, None],
    }
    true = batch.true_coords
    targets = {
        "tgt_tokens": batch.true_tokens.masked_fill(~batch.masked, dictionary.pad()),
        "tgt_coordinates": true,
        "tgt_distance": (true[:, :, None] - true[:, None]).norm(dim=-1),
    }
    loss, _, logged = UniMolLoss(dictionary)(theirs, inputs, targets)
    return loss, logged, theirs


def test_losses_and_gradients_equal_those_of_unimol_tools(batch, model, dictionary):
    means = mean_losses(model(batch))
    loss = total_loss(means, LossWeights())
    loss.backward()
    expected, logged, theirs = reference_of(batch, model, dictionary)
    expected.backward()
    for ours, name in (
        ("token", "masked_token_loss"), ("coord", "masked_coord_loss"),
        ("distance", "masked_dist_loss"), ("x_norm", "x_norm_loss"),
        ("pair_norm", "delta_pair_repr_norm_loss"),
    ):  # fmt: skip
        assert means[ours].item() == pytest.approx(logged[name].item(), rel=1e-5), ours
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert means["pair_norm"] > 0
    hits = means["accuracy"] * logged["masked_token_cnt"]
    assert hits.item() == pytest.approx(logged["masked_token_hit"].item())
    expected_gradients = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        wanted = expected_gradients[name].grad
        scale = wanted.abs().max() + 1e-6
        assert ((parameter.grad - wanted).abs().max() / scale) < 1e-3, name


def test_parts_of_a_batch_add_up_to_its_gradient(molecules, batch, model):
    total_loss(mean_losses(model(batch)), LossWeights()).backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    spoiled = [
        mask_molecule(m, VOCABULARY, MaskRecipe(), np.random.RandomState(i))
        for i, m in enumerate(molecules)
    ]
    parts = [
        model(mask_batch(molecules[rows], spoiled[rows], VOCABULARY.pad))
        for rows in (slice(0, 3), slice(3, 10))
    ]
    counts = ("atoms", "distances", "molecules")
    totals = {name: sum(getattr(part, name) for part in parts) for name in counts}
    for part in parts:
        total_loss(mean_losses(LossSums(**{**part._asdict(), **totals})), LossWeights()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-3, atol=1e-5)


def test_trained_gaussians_and_their_gradients_equal_the_plain_ones_in_float64():
    torch.manual_seed(0)
    plain, fast = GaussianFeatures(CONFIG).double(), TrainedGaussians(CONFIG).double()
    for parameter in plain.parameters():
        torch.nn.init.uniform_(parameter, 0.2, 3.0)
    fast.load_state_dict(plain.state_dict())
    distance = torch.rand(2, 7, 7, dtype=torch.float64) * 9
    edges = torch.randint(0, CONFIG.vocabulary**2, (2, 7, 7))
    weight = torch.randn(2, 7, 7, CONFIG.gaussians, dtype=torch.float64)
    made = [module(distance, edges) for module in (plain, fast)]
    torch.testing.assert_close(made[1], made[0], rtol=1e-9, atol=1e-12)
    for channels in made:
        (channels * weight).sum().backward()
    for (name, expected), found in zip(plain.named_parameters(), fast.parameters()):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-8, atol=1e-10, msg=name)
