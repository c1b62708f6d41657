"""The store: what is written is found again, whole, whatever happens to the writers."""

from __future__ import annotations

import json
import multiprocessing
import os
import uuid
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute, parquet_bytes, write_atomically
from pipeline.store.keyed_table import KeyedTable, new_run_stamp
from tests.store.made_rows import DIM, SETTINGS, keys_of, rows_of, vectors


def files(table: KeyedTable) -> list[str]:
    return sorted(os.listdir(table.uri))


def test_features_come_back_in_the_order_asked(table):
    table.write(rows_of(*range(10)), new_run_stamp())
    table.write(rows_of(*range(10, 20)), new_run_stamp())
    order = [13, 2, 19, 0, 10, 7, 2]
    found = table.read_features(keys_of(*order))
    assert found.dtype == np.float32 and found.shape == (len(order), DIM)
    np.testing.assert_array_equal(found, vectors(*order))
    assert table.read(keys_of(*order))["key"].to_pylist() == keys_of(*order)


def test_a_row_takes_its_part_of_the_files_that_hold_such(table):
    table.write(rows_of(*range(3)), new_run_stamp())
    table.write(rows_of(*range(10, 110)), new_run_stamp())
    small, large = (
        os.path.getsize(f"{table.uri}/{name}") for name in files(table) if name[0] != "_"
    )
    assert table.bytes_per_row(keys_of(1)) == small / 3
    assert table.bytes_per_row(keys_of(20, 40)) == large / 100
    assert table.bytes_per_row(keys_of(1, 40)) == (small + large) / 103


def test_features_are_in_memory_of_their_own(table):
    table.write(rows_of(1, 2), new_run_stamp())
    found = table.read_features(keys_of(1, 2))
    found[:] = 0
    np.testing.assert_array_equal(table.read_features(keys_of(1, 2)), vectors(1, 2))


def test_rows_with_lists_and_nulls_come_back(table):
    rows = pa.table({"key": keys_of(1, 2), "atoms": [[6, 8], []], "kind": ["3d", None]})
    table.write(rows, new_run_stamp())
    assert table.read(keys_of(2, 1)).to_pylist() == rows.to_pylist()[::-1]


def test_the_newest_run_wins(table):
    first, second = new_run_stamp(), new_run_stamp()
    assert first < second
    table.write(rows_of(1, 2, shift=100), second)
    table.write(rows_of(2, 3), first)  # written later, by the run that began earlier
    np.testing.assert_array_equal(table.read_features(keys_of(2)), vectors(2, shift=100))
    np.testing.assert_array_equal(table.read_features(keys_of(3)), vectors(3))
    assert len(table.index().keys) == 3


def test_run_stamps_sort_by_time():
    stamps = [new_run_stamp() for _ in range(200)]
    assert stamps == sorted(set(stamps))


def test_other_settings_are_another_table(tmp_path, table):
    table.write(rows_of(1), new_run_stamp())
    other = KeyedTable(str(tmp_path / "store"), "features", {**SETTINGS, "precision": "bf16"})
    assert other.key != table.key and other.uri != table.uri
    assert keys_of(1)[0] in table.index() and keys_of(1)[0] not in other.index()
    same = KeyedTable(str(tmp_path / "store"), "features", dict(reversed(SETTINGS.items())))
    assert same.uri == table.uri


def test_the_folder_says_what_decides_its_rows(table):
    table.create()
    assert json.loads((Path(table.uri) / "_settings.json").read_text()) == SETTINGS
    assert table.shards() == []


def test_absent_keys_are_a_key_error_that_counts_them(table):
    with pytest.raises(KeyError, match="1 of 1 keys"):
        table.read_features(keys_of(1))
    table.write(rows_of(*range(10)), new_run_stamp())
    with pytest.raises(KeyError, match="2 of 4 keys"):
        table.read(keys_of(3, 77, 4, 78))
    with pytest.raises(KeyError):
        table.places(keys_of(77), table.index())


def test_find_tells_present_from_absent(table):
    table.write(rows_of(*range(0, 100, 2)), new_run_stamp())
    found = table.index().find(keys_of(*range(100))) >= 0
    assert found.tolist() == [n % 2 == 0 for n in range(100)]
    assert KeyedTable(table.uri, "empty", {}).index().find(keys_of(1, 2)).tolist() == [-1, -1]


def test_no_rows_make_no_shard(table):
    table.write(rows_of(1).slice(0, 0), new_run_stamp())
    assert table.shards() == []
    assert table.read([]).num_rows == 0


def test_places_lead_to_the_rows(table):
    for start in range(0, 30, 10):
        table.write(rows_of(*range(start, start + 10)), new_run_stamp())
    wanted = keys_of(25, 3, 14, 4)
    places = table.places(wanted, table.index())
    found = table.read_places(places)
    assert found["key"].to_pylist() == places["key"].to_pylist()
    assert sorted(found["key"].to_pylist()) == sorted(wanted)
    numbers = dict(zip(wanted, (25, 3, 14, 4)))
    expected = vectors(*(numbers[key] for key in places["key"].to_pylist()))
    np.testing.assert_array_equal(np.stack(found["features"].to_pylist()), expected)


def test_a_partial_file_of_a_killed_writer_is_not_seen(table):
    table.write(rows_of(1), new_run_stamp())
    partial = Path(table.uri) / f".{uuid.uuid4().hex}.partial"
    partial.write_bytes(parquet_bytes(rows_of(2))[:50])
    assert len(table.shards()) == 1
    assert keys_of(2)[0] not in table.index()


def test_a_crash_in_the_middle_of_a_write_leaves_nothing(table, monkeypatch):
    table.write(rows_of(1), new_run_stamp())
    before = files(table)

    def crash(source, target):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(InputError, match="disk full"):
            table.write(rows_of(2), new_run_stamp())
    assert files(table) == before


def test_a_target_is_only_ever_whole(tmp_path, monkeypatch):
    target = tmp_path / "results.json"
    write_atomically(str(target), b"old")
    real, seen = os.replace, []

    def look(source, destination):
        seen.append((target.read_bytes(), Path(source).read_bytes()))
        real(source, destination)

    monkeypatch.setattr(os, "replace", look)
    write_atomically(str(target), b"new")
    assert seen == [(b"old", b"new")] and target.read_bytes() == b"new"


def test_writing_a_shard_again_replaces_it_by_itself(table):
    run = new_run_stamp()
    table.write(rows_of(1, 2), run)
    before = [(name, (Path(table.uri) / name).read_bytes()) for name in files(table)]
    table.write(rows_of(1, 2), run)
    assert [(name, (Path(table.uri) / name).read_bytes()) for name in files(table)] == before


def write_some(root: str, writer: int) -> None:
    """A writer's 5 shards: molecules of its own, and molecule 0, which all of them write."""
    table = KeyedTable(root, "features", SETTINGS)
    table.create()
    for start in range(1000 * writer, 1000 * writer + 50, 10):
        table.write(rows_of(0, *range(start + 1, start + 10)), new_run_stamp())


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_concurrent_writers_lose_nothing(tmp_path, table, kind):
    root = str(tmp_path / "store")
    if kind == "threads":
        pool = ThreadPoolExecutor(8)
    else:  # spawned: a fork of a process that runs Ray's threads may hang
        pool = ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn"))
    with pool:
        list(pool.map(write_some, [root] * 6, range(6)))
    written = [n for w in range(6) for n in range(1000 * w, 1000 * w + 50) if n % 10]
    np.testing.assert_array_equal(table.read_features(keys_of(0, *written)), vectors(0, *written))
    assert len(table.index().keys) == 1 + len(written)
    assert len(table.shards()) == 30


def test_one_run_writing_from_many_threads_loses_nothing(table):
    run = new_run_stamp()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: table.write(rows_of(n), run), range(100)))
    np.testing.assert_array_equal(table.read_features(keys_of(*range(100))), vectors(*range(100)))


def test_readers_beside_a_writer_see_whole_shards(table):
    table.write(rows_of(0), new_run_stamp())
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(
            lambda: [table.write(rows_of(*range(n, n + 5)), new_run_stamp()) for n in range(80)]
        )
        while not writing.done():
            index = table.index()
            found = [n for n in range(85) if keys_of(n)[0] in index]
            np.testing.assert_array_equal(
                table.read_features(keys_of(*found), index), vectors(*found)
            )
        writing.result()


def test_any_fsspec_filesystem_holds_the_store():
    root = f"memory://{uuid.uuid4().hex}/store/"
    table = KeyedTable(root, "features", SETTINGS)
    assert table.shards() == []
    table.create()
    table.write(rows_of(1, 2), new_run_stamp())
    table.write(rows_of(2, 3, shift=5), new_run_stamp())
    np.testing.assert_array_equal(table.read_features(keys_of(1)), vectors(1))
    np.testing.assert_array_equal(table.read_features(keys_of(3, 2)), vectors(3, 2, shift=5))
    assert json.loads(fsspec.open(f"{table.uri}/_settings.json").open().read()) == SETTINGS


def test_a_relative_root_means_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = KeyedTable("store/", "features", SETTINGS)
    monkeypatch.chdir("/")
    table.write(rows_of(1), new_run_stamp())
    assert table.uri.startswith(f"{tmp_path}/store/features/")
    assert absolute("s3://bucket/store/") == "s3://bucket/store"
