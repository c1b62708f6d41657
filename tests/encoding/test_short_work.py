"""A few molecules are encoded in the driver, as actors would encode them, and only then."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch

from pipeline.encoders import encoder_class
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding import short_work, stored_features
from pipeline.encoding.plan import EncoderPool, plan_encoding
from pipeline.encoding.short_work import ACTORS_START, most_here
from pipeline.encoding.stored_features import encode
from tests.encoding.test_stored_features import table_of, values

POOL = EncoderPool(2, "cpu", 0, 0, 128)


@pytest.fixture
def plan_of(ray_session, small_weights, tmp_path):
    """A plan of Uni-Mol's small weights, with other settings."""

    def made(**changes):
        usual = {
            "device": "cpu", "precision": "fp32", "weights": str(small_weights),
            "cache_root": str(tmp_path / "store"), "conformer_method": "etkdg",
        }  # fmt: skip
        return plan_encoding(EncoderSettings(**{**usual, **changes}))

    return made


def test_actors_start_where_they_are_asked_for_or_better(plan_of, monkeypatch):
    plan = plan_of()
    seconds = encoder_class("unimol").core_seconds(plan.weights)
    assert 0 < seconds < 0.01  # by the file's size, as MolSieve-Mini's 15 ms are
    assert encoder_class("unimol").core_seconds("mini") == pytest.approx(0.015, rel=0.05)
    assert most_here([plan], POOL) == pytest.approx(ACTORS_START / seconds)
    assert most_here([plan, plan], POOL, 0.1) == pytest.approx(ACTORS_START / (0.1 + 2 * seconds))
    assert most_here([plan_of(encoder_workers=2)], POOL) == 0
    assert most_here([plan], POOL._replace(device="cuda")) == 0
    light = plan_of(foundation_model="ecfp", weights=None)
    assert most_here([light], POOL) == pytest.approx(5000)
    monkeypatch.setattr(short_work, "is_one_node", lambda: False)
    assert most_here([plan], POOL) == 0
    assert most_here([light], POOL) == pytest.approx(5000)  # RDKit's work anywhere
    assert most_here([light], POOL, 0.1) == 0
    assert encoder_class("esm").core_seconds(None) == math.inf


def test_the_driver_makes_what_actors_make(plan_of, moses_smiles, tmp_path, monkeypatch, caplog):
    smiles = [*moses_smiles[:10], "[Na+]"]
    started = []
    by_actors = stored_features.encoding_graph
    monkeypatch.setattr(
        stored_features, "encoding_graph", lambda *given: started.append(1) or by_actors(*given)
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with caplog.at_level(logging.INFO):
            here = encode(table_of(smiles), plan_of())
        assert not started and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert here.stages.encoders == 0 and "encoded in this process" in caplog.text
    other = encode(
        table_of(smiles), plan_of(encoder_workers=1, cache_root=str(tmp_path / "others"))
    )
    assert started and other.stages.encoders == 1
    assert (here.encoded, here.known) == (other.encoded, other.known)
    assert here.rejected.equals(other.rejected)
    np.testing.assert_allclose(values(here, smiles[:10]), values(other, smiles[:10]), rtol=1e-5)
    again = encode(table_of(smiles), plan_of(force_recompute_cache=True))
    assert again.encoded == here.encoded  # conformers of the store, in the driver


def test_a_large_work_goes_to_actors(plan_of, moses_smiles, monkeypatch):
    asked = []

    def graph(*given):
        asked.append(given)
        raise InterruptedError

    monkeypatch.setattr(stored_features, "encoding_graph", graph)
    monkeypatch.setattr(short_work, "ACTORS_START", 1e-9)
    with pytest.raises(InterruptedError):
        encode(table_of(moses_smiles[:3]), plan_of())
    assert asked
