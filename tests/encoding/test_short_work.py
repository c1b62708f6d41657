"""A few molecules are encoded in the driver, as actors would encode them, and only then."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.encoders import encoder_class
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoders.unimol.weights import MINI_FILE
from pipeline.encoding import short_work, stored_features
from pipeline.encoding.in_store.tables import TrunkSpec
from pipeline.encoding.lookup import Pending
from pipeline.encoding.plan import EncoderPool, plan_encoding
from pipeline.encoding.short_work import (
    THREAD_SECONDS,
    core_seconds,
    is_short,
    may_work_here,
    threads_here,
)
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
    monkeypatch.setattr(short_work, "usable_cores", lambda: 2)
    plan, light = plan_of(), plan_of(foundation_model="ecfp", weights=None)
    assert may_work_here([plan], POOL)
    assert not may_work_here([plan, plan_of(encoder_workers=2)], POOL)
    assert not may_work_here([plan], POOL._replace(device="cuda"))
    work = Pending(pa.table({"key": ["k"] * 5000}), pa.table({"key": []}))
    assert is_short(work, light, POOL) and is_short(work, plan, POOL)
    more = Pending(pa.table({"key": ["k"] * 5001}), pa.table({"key": []}))
    assert not is_short(more, light, POOL)
    monkeypatch.setattr(short_work, "is_one_node", lambda: False)
    assert not may_work_here([plan], POOL)
    assert is_short(work, light, POOL) and not is_short(work, plan, POOL)  # RDKit's work anywhere


def test_the_seconds_of_a_molecule(plan_of):
    plan = plan_of()
    assert Path(plan.weights).stat().st_size < MINI_FILE.stat().st_size
    assert 0.003 < core_seconds(plan) < core_seconds(plan_of(weights="mini")) < 0.015
    assert 0.02 < core_seconds(plan_of(weights="untrained")) < 0.055
    state = torch.load(plan.weights, weights_only=True)
    all_atoms = Path(plan.weights).with_name("mol_pre_all_h.pt")
    torch.save(state, all_atoms)
    try:
        more = core_seconds(plan_of(weights=str(all_atoms)))
    finally:
        all_atoms.unlink()
    assert more == pytest.approx(2 * core_seconds(plan), rel=0.01)
    finetuned = replace(plan, settings=replace(plan.settings, finetuned="a"), weights=None)
    assert core_seconds(finetuned) == math.inf
    assert encoder_class("esm").core_seconds(None) == math.inf


@pytest.mark.parametrize(
    ("cores", "encoder", "more", "expected"),
    [
        (1, "unimol", False, 1), (2, "unimol", False, 2), (3, "unimol", False, 1),
        (2, "unimol", True, 1), (2, "ecfp", False, 1),
    ],
)  # fmt: skip
def test_threads_are_for_two_cores_and_for_what_python_does_not_hold_up(
    plan_of, monkeypatch, cores, encoder, more, expected
):
    plan = plan_of(foundation_model=encoder, **({} if encoder == "unimol" else {"weights": None}))
    plan = plan.with_trunk(TrunkSpec(1, "bf16")) if more else plan
    monkeypatch.setattr(short_work, "usable_cores", lambda: cores)
    monkeypatch.setattr(short_work, "cores_now", lambda: 8)
    assert threads_here(plan) == expected
    if expected > 1:
        rows = int(THREAD_SECONDS * expected / core_seconds(plan)) - 1
        some = Pending(pa.table({"key": ["k"] * rows}), pa.table({"key": []}))
        assert is_short(some, plan, POOL)
        monkeypatch.setattr(short_work, "cores_now", lambda: 1)  # of the cluster that was started
        assert threads_here(plan) == 1 and not is_short(some, plan, POOL)


def test_no_thread_takes_more_than_its_core(plan_of, moses_smiles, monkeypatch):
    """Whatever the environment says: here two threads, as where nothing limits them."""
    took = []

    class Watched(short_work.EncodeBatch):
        def encode(self, batch):
            blas = [each for each in threadpool_info() if each["user_api"] == "blas"]
            took.append((torch.get_num_threads(), {each["num_threads"] for each in blas}))
            return super().encode(batch)

    monkeypatch.setattr(short_work, "EncodeBatch", Watched)
    monkeypatch.setattr(short_work, "usable_cores", lambda: 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2, user_api="blas"):
            assert encode(table_of(moses_smiles[:6]), plan_of()).encoded == 6
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert took and all(each == (1, {1}) for each in took)


def test_the_driver_makes_what_actors_make(plan_of, moses_smiles, tmp_path, monkeypatch, caplog):
    smiles = [*moses_smiles[:10], "[Na+]"]
    monkeypatch.setattr(short_work, "usable_cores", lambda: 2)
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
    assert here.stages.encoders == 0 and "done in this process" in caplog.text
    other = encode(
        table_of(smiles), plan_of(encoder_workers=1, cache_root=str(tmp_path / "others"))
    )
    assert started and other.stages.encoders == 1
    assert (here.encoded, here.known) == (other.encoded, other.known)
    worked = here.stages.busy_seconds + here.stages.waiting_seconds
    assert 0 < worked < 2 * here.seconds + 1  # of two threads
    real = [each.stages.tokens - each.stages.padding for each in (here, other)]
    assert real[0] == pytest.approx(real[1]) and real[0] > 0
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
    monkeypatch.setattr(short_work, "THREAD_SECONDS", 1e-9)
    with pytest.raises(InterruptedError):
        encode(table_of(moses_smiles[:3]), plan_of())
    assert asked
