"""Global batches: whole epochs, the same for any number of workers, repeatable by seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from pipeline.store.keyed_table import KeyedTable, feature_matrix, features_table
from pipeline.training.worker.batches import ResidentBatches, StreamedBatches
from pipeline.training.worker.streams import stream_of

ID_START, OOD_START = 0, 10_000  # a molecule's feature is its number, so batches tell who is in


def numbers(start: int, size: int) -> torch.Tensor:
    return torch.arange(start, start + size, dtype=torch.float32)[:, None].repeat(1, 3)


def resident(id_size, ood_size, batch_size, *, seed=7, rank=0, world=1) -> ResidentBatches:
    ids, oods = numbers(ID_START, id_size), numbers(OOD_START, ood_size)
    return ResidentBatches(ids, oods, batch_size, seed, rank, world, torch.device("cpu"))


def members(batches, epoch=0) -> list[tuple[list[float], list[float]]]:
    """Each step's molecules, by number."""
    return [
        (batch.id_rows[:, 0].tolist(), batch.ood_rows[:, 0].tolist())
        for batch in batches.epoch(epoch)
    ]


def interleave(parts: list[list[float]]) -> list[float]:
    """What workers hold, put back in the global batch's order."""
    whole = [None] * sum(len(part) for part in parts)
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def seen(steps, kind: int) -> Counter:
    return Counter(molecule for step in steps for molecule in step[kind])


SIZES = [(100, 60, 16), (60, 100, 16), (64, 64, 16), (33, 7, 10), (5, 3, 64), (1, 9, 4), (8, 8, 2)]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("id_size, ood_size, batch_size", SIZES)
def test_workers_shares_interleave_to_the_same_global_batches(id_size, ood_size, batch_size, world):
    whole = members(resident(id_size, ood_size, batch_size))
    parts = [
        members(resident(id_size, ood_size, batch_size, rank=rank, world=world))
        for rank in range(world)
    ]
    assert {len(part) for part in parts} == {len(whole)}  # no worker waits for another
    for step, (ids, oods) in enumerate(whole):
        assert interleave([part[step][0] for part in parts]) == ids
        assert interleave([part[step][1] for part in parts]) == oods


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_worker_knows_the_sizes_of_the_global_batch(world):
    for rank in range(world):
        for ours, whole in zip(
            resident(33, 20, 10, rank=rank, world=world).epoch(2), resident(33, 20, 10).epoch(2)
        ):
            assert ours.id_total == len(whole.id_rows)
            assert ours.ood_total == len(whole.ood_rows)


def test_a_batch_smaller_than_the_world_leaves_a_worker_an_empty_share():
    steps = [members(resident(4, 4, 2, rank=rank, world=3)) for rank in range(3)]
    assert [[len(ids) for ids, _ in part] for part in steps] == [[1, 1], [1, 1], [0, 0]]
    last = next(iter(resident(4, 4, 2, rank=2, world=3).epoch(0)))
    assert last.id_rows.shape == (0, 3)


@pytest.mark.parametrize("id_size, ood_size, batch_size", SIZES)
def test_the_larger_set_is_passed_over_exactly_once(id_size, ood_size, batch_size):
    steps = members(resident(id_size, ood_size, batch_size))
    larger = 0 if id_size >= ood_size else 1
    start, size = [(ID_START, id_size), (OOD_START, ood_size)][larger]
    assert seen(steps, larger) == Counter(float(n) for n in range(start, start + size))
    assert len(steps) == -(-size // batch_size)


@pytest.mark.parametrize("id_size, ood_size, batch_size", SIZES)
def test_the_smaller_set_is_cycled_evenly_and_wholly(id_size, ood_size, batch_size):
    steps = members(resident(id_size, ood_size, batch_size))
    smaller = 1 if id_size >= ood_size else 0
    start, size = [(ID_START, id_size), (OOD_START, ood_size)][smaller]
    counts = seen(steps, smaller)
    assert set(counts) <= {float(n) for n in range(start, start + size)}
    if len(steps) * min(batch_size, size) >= size:
        assert len(counts) == size
    assert max(counts.values()) - min(counts.values()) <= 1
    assert {len(step[smaller]) for step in steps} == {min(batch_size, size)} or id_size == ood_size


def test_sizes_smaller_than_the_batch_make_one_batch_of_all():
    [(ids, oods)] = members(resident(5, 3, 64))
    assert sorted(ids) == [0, 1, 2, 3, 4] and len(oods) == 3


def test_the_order_is_by_seed_and_epoch():
    first = members(resident(100, 60, 16, seed=1), epoch=0)
    assert members(resident(100, 60, 16, seed=1), epoch=0) == first
    assert members(resident(100, 60, 16, seed=1), epoch=1) != first
    assert members(resident(100, 60, 16, seed=2), epoch=0) != first
    assert first[0][0] != sorted(first[0][0])


def test_an_epoch_does_not_depend_on_the_epochs_before_it():
    batches = resident(40, 30, 16)
    members(batches, epoch=0)
    assert members(batches, epoch=3) == members(resident(40, 30, 16), epoch=3)


# --- batches that stream through Ray Data ---------------------------------------------------


@pytest.fixture(scope="module")
def stored(ray_session, tmp_path_factory):
    """A features table of several shards, and 90 ID and 35 OOD keys spread over them."""
    table = KeyedTable(str(tmp_path_factory.mktemp("store")), "features", {"test": "batches"})
    table.create()
    vectors = torch.cat([numbers(ID_START, 90), numbers(OOD_START, 35)]).numpy()
    keys = [f"{n:032x}" for n in np.random.default_rng(0).permutation(len(vectors))]
    for shard in range(4):
        table.write(features_table(keys[shard::4], vectors[shard::4]), f"run{shard}")
    return table, keys[:90], keys[90:]


def streamed(stored, *, seed=7, rank=0, world=1, batch_size=20) -> StreamedBatches:
    table, id_keys, ood_keys = stored
    index = table.index()
    datasets = [stream_of(table, index, keys) for keys in (id_keys, ood_keys)]
    for dataset in datasets:  # as training configures them
        dataset.context.execution_options.preserve_order = True
    id_stream, ood_stream = (dataset.iterator() for dataset in datasets)
    return StreamedBatches(
        id_stream, ood_stream, len(id_keys), len(ood_keys), batch_size, seed, rank, world,
        lambda rows: torch.from_numpy(feature_matrix(rows)),
    )  # fmt: skip


def test_a_stream_passes_over_the_larger_set_once_and_cycles_the_smaller(stored):
    steps = members(streamed(stored))
    assert len(steps) == 5
    assert seen(steps, 0) == Counter(float(n) for n in range(90))
    smaller = seen(steps, 1)
    assert len(smaller) == 35 and max(smaller.values()) - min(smaller.values()) <= 1


def test_a_stream_repeats_its_order_by_seed_and_epoch(stored):
    first = members(streamed(stored))
    assert members(streamed(stored)) == first
    assert members(streamed(stored), epoch=1) != first
    assert members(streamed(stored, seed=8)) != first


def test_streams_of_two_workers_interleave_to_the_batches_of_one(stored):
    whole = members(streamed(stored))
    parts = [members(streamed(stored, rank=rank, world=2)) for rank in range(2)]
    for step, (ids, oods) in enumerate(whole):
        assert interleave([part[step][0] for part in parts]) == ids
        assert interleave([part[step][1] for part in parts]) == oods


def test_a_stream_holds_the_stored_features_whole(stored):
    for batch in streamed(stored).epoch(0):
        assert batch.id_rows.dtype == torch.float32
        assert batch.id_rows.shape == (batch.id_total, 3)
        assert (batch.id_rows == batch.id_rows[:, :1]).all()
