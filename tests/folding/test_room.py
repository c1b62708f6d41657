"""What structures take in the store, and what actors of ESMFold take of a cluster."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import ray

from pipeline.folding.esmfold.flow import ACTOR_CORES, folding_pool, longest_first
from pipeline.folding.expected_work import expected_work
from pipeline.folding.files.flow import TASK_FILES
from pipeline.folding.tables import NAME, bytes_needed, check_room, kept_rows, structure_row
from pipeline.runtime.errors import InputError
from pipeline.runtime.nodes.cluster import MAX_RESOURCES
from pipeline.store.bounded import GIB, BoundedTable
from tests.store.made_rows import SETTINGS

NOTES = ["B-factors that are no pLDDT", "residues without coordinates"]


@pytest.mark.parametrize("length", [2, 12, 200])
def test_what_structures_need_is_what_they_take(tmp_path, length):
    table = BoundedTable(str(tmp_path), NAME, SETTINGS, 1, dense=True)
    features, rows = np.ones((length, 33), np.float32), 3 * TASK_FILES
    source = "AF-P12345-F1-model_v4.cif.gz:A"
    for start in range(0, rows, TASK_FILES):
        made = [
            structure_row(f"{number:032x}", features, source, NOTES)
            for number in range(start, start + TASK_FILES)
        ]
        table.write(kept_rows(made), "run")
    sequences = pa.chunked_array([["A" * length] * rows])
    assert table.bytes_held() <= bytes_needed(sequences) <= 1.2 * table.bytes_held()


def test_a_store_is_refused_from_what_is_needed_on():
    sequences = pa.chunked_array([["A" * 10] * 1000])
    needed = bytes_needed(sequences) / GIB
    check_room(sequences, 1.001 * needed)
    with pytest.raises(InputError, match="--store_gb .*: the structures of these 1,000 sequences"):
        check_room(sequences, 0.999 * needed)


@pytest.fixture
def pool_of(tmp_path, monkeypatch):
    """The pool on a cluster of nodes with so many cores, a model of a MiB, and GiB of memory."""

    def pool(*cores: int, memory_gb: float = 1.0, workers: int | None = None):
        (tmp_path / "model.safetensors").write_bytes(b"")
        os.truncate(tmp_path / "model.safetensors", 1024**2)
        has = {"CPU": float(sum(cores)), "memory": memory_gb * GIB}
        nodes = [{"Alive": True, "Resources": {"CPU": float(each)}} for each in cores]
        monkeypatch.setattr(ray, "cluster_resources", lambda: has)
        monkeypatch.setattr(ray, "nodes", lambda: nodes)
        weights = SimpleNamespace(files=[tmp_path / "model.safetensors"])
        settings = SimpleNamespace(fold_workers=workers)
        return folding_pool(SimpleNamespace(settings=settings, device="cpu", weights=weights))

    return pool


def test_a_cluster_that_grows_begins_with_what_it_has(pool_of, monkeypatch):
    monkeypatch.setenv(MAX_RESOURCES, '{"CPU": 64}')
    pool = pool_of(8)
    assert (pool.actors, pool.now, pool.cpus) == (64 // ACTOR_CORES, 2, ACTOR_CORES)


def test_no_actor_wants_more_cores_than_a_node_has(pool_of, monkeypatch):
    monkeypatch.delenv(MAX_RESOURCES, raising=False)
    pool = pool_of(2, 2, 2, 2)
    assert (pool.actors, pool.cpus) == (4, 2)
    assert pool_of(1).cpus == 1


def test_memory_and_settings_bound_the_actors(pool_of, monkeypatch):
    monkeypatch.delenv(MAX_RESOURCES, raising=False)
    assert pool_of(32, memory_gb=5 / 1024).actors == 2  # a model and its file are 2 MiB
    pool = pool_of(8, workers=8)
    assert (pool.actors, pool.cpus) == (8, 1)


def test_tasks_hold_like_lengths_and_like_work():
    lengths = np.random.default_rng(0).integers(2, 400, 1000)
    table = pa.table({"key": [str(n) for n in range(1000)], "smiles": ["A" * n for n in lengths]})
    tasks = longest_first(table, 8)
    sizes = [[len(sequence) for sequence in task["smiles"].to_pylist()] for task in tasks]
    assert sorted(sum(sizes, [])) == sorted(lengths.tolist())
    assert all(min(a) >= max(b) for a, b in zip(sizes, sizes[1:]))
    work = [expected_work(np.array(each)).sum() for each in sizes if len(each) < 256]
    assert max(work) <= expected_work(lengths).sum() / 8
    assert len(longest_first(table.slice(0, 1), 8)) == 1
