"""ESM-2's features are those of transformers' own model on one sequence, in any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import EsmModel, EsmTokenizer

from pipeline.encoders import load_encoder
from pipeline.encoders.esm.encoder import EsmEncoder
from pipeline.encoders.unimol.batching import Budget
from pipeline.molecules.sequences import EXTRA, STANDARD
from pipeline.runtime.errors import InputError, RowRejected


def load(folder, **settings) -> EsmEncoder:
    return load_encoder(
        "esm", weights=str(folder), device="cpu", **{"precision": "fp32", **settings}
    )


@pytest.fixture(scope="module")
def sequences(peptides) -> list[str]:
    long = "".join(peptides.values())
    return [*list(peptides.values())[::3], STANDARD + EXTRA, "M", "MK", long[:300], long[300:601]]


@pytest.fixture(scope="module")
def expected(esm_folder, sequences) -> list[np.ndarray]:
    """Each residue's feature by transformers alone: its tokenizer, plain attention, one by one."""
    tokenizer = EsmTokenizer.from_pretrained(esm_folder)
    model = EsmModel.from_pretrained(esm_folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return [
            model(**tokenizer(one, return_tensors="pt")).last_hidden_state[0, 1:-1].numpy()
            for one in sequences
        ]


# Batches as they come, of whatever length, each sequence alone, and two long ones to a batch.
BUDGETS = [None, Budget(256, 10**9, 10**9, 10**9), Budget(1, 1, 1, 1), Budget(256, 700, 10**9, 0)]


@pytest.mark.parametrize("budget", BUDGETS)
def test_features_are_those_of_plain_transformers(esm_folder, sequences, expected, budget):
    encoder = load(esm_folder, budget=budget)
    features = encoder.encode_sequences(sequences)
    means = np.stack([each.mean(axis=0, dtype=np.float64) for each in expected])
    assert features.dtype == np.float32 and features.shape == (len(sequences), encoder.dim)
    np.testing.assert_allclose(features, means, atol=1e-5)
    assert np.std(means, axis=0).min() > 0.01  # what differs can be seen
    for found, right in zip(encoder.encode_residues(sequences), expected):
        np.testing.assert_allclose(found, right, atol=1e-5)
    both, _ = encoder.encode_with_residues([encoder.prepare({"smiles": s}) for s in sequences])
    np.testing.assert_allclose(both, features, atol=1e-6)


def test_order_and_neighbours_change_nothing(esm_folder, sequences):
    encoder = load(esm_folder)
    features = encoder.encode_sequences(sequences)
    order = np.random.default_rng(0).permutation(len(sequences))
    again = encoder.encode_sequences([sequences[i] for i in order])
    np.testing.assert_allclose(again, features[order], atol=1e-6)
    np.testing.assert_allclose(
        encoder.encode_sequences([" m k\nlv* "]), encoder.encode_sequences(["MKLV"]), atol=1e-6
    )


@pytest.mark.parametrize("precision, close", [("bf16", 0.1), ("fp16", 0.02)])
def test_lower_precision_is_close(esm_folder, sequences, precision, close):
    some = [one for one in sequences if len(one) < 60]
    exact = load(esm_folder).encode_sequences(some)
    rounded = load(esm_folder, precision=precision).encode_sequences(some)
    assert rounded.dtype == np.float32
    difference = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 1e-6 < difference < close  # some rounding there is


def test_tokens_and_padding_are_counted(esm_folder):
    encoder = load(esm_folder, budget=Budget(8, 10**6, 10**6, 10**6))
    encoder.encode_sequences(["MKLV", "MK"])
    assert encoder.take_token_counts() == (12, 2)
    assert encoder.take_token_counts() == (0, 0)


def test_where_memory_runs_out_batches_halve(esm_folder, sequences, monkeypatch, caplog):
    encoder = load(esm_folder)
    expected, run = encoder.encode_sequences(sequences), EsmEncoder._run

    def tight(self, some, keep):
        if sum(map(len, some)) > 320:
            raise RuntimeError("CUDA out of memory")
        return run(self, some, keep)

    monkeypatch.setattr(EsmEncoder, "_run", tight)
    np.testing.assert_allclose(encoder.encode_sequences(sequences), expected, atol=1e-5)
    assert "ran out of memory" in caplog.text
    with pytest.raises(MemoryError, match="no room for one molecule"):
        encoder.encode_sequences(["M" * 400])


def test_no_sequences_have_no_features(esm_folder):
    assert load(esm_folder).encode_sequences([]).shape == (0, 48)


def test_what_is_no_sequence_is_rejected(esm_folder):
    encoder = load(esm_folder)
    with pytest.raises(RowRejected, match="has gaps"):
        encoder.encode_sequences(["MK-LV"])
    with pytest.raises(RowRejected, match="no token for 'J'"):
        encoder.prepare({"smiles": "MKJ"})
    with pytest.raises(InputError, match="not SMILES: use encode_sequences"):
        encoder.encode_smiles(["CCO"])


@pytest.mark.parametrize(
    "settings, told",
    [({"token_order": "official"}, "--token_order"), ({"finetuned": "x"}, "cannot be finetuned"),
     ({"model_size": "9m"}, "published in 8m, 35m"), ({"model_size": "8m"}, "leave one out")],
)  # fmt: skip
def test_settings_of_no_use_are_refused(settings, told):
    for use in (EsmEncoder, EsmEncoder.identity):
        with pytest.raises(InputError, match=told):
            use(weights="untrained", **settings)


def test_the_untrained_model_is_the_same_each_time():
    one, two = (load("untrained").encode_sequences(["MKLV", "ACDE"]) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one[0] - one[1]).max() > 0.1
