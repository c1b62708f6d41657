"""Bounded tables: what was not used longest goes, also where several processes write at once."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from pipeline.runtime.errors import DamagedFile
from pipeline.store.bounded import GIB, BoundedTable
from pipeline.store.keyed_table import new_run_stamp
from tests.store.made_rows import SETTINGS, keys_of, rows_of, vectors


def made(root, most_bytes: float, **other) -> BoundedTable:
    return BoundedTable(
        str(root), "structures", {**SETTINGS, **other}, most_bytes / GIB, dense=True
    )


@pytest.fixture
def of_one(tmp_path) -> int:
    """Bytes of a shard with one row."""
    table = made(tmp_path / "other", 1 << 20)
    table.write(rows_of(0), new_run_stamp())
    return table.bytes_held()


def aged(table: BoundedTable) -> None:
    """Make each shard's last use an hour older, so that the clock's steps do not matter."""
    for shard in table.shards():
        used = os.stat(shard).st_mtime - 3600
        os.utime(shard, (used, used))


def held(table: BoundedTable) -> list[int]:
    index = table.index()
    return [number for number in range(20) if keys_of(number)[0] in index]


def test_the_oldest_go_where_room_ends(tmp_path, of_one):
    table = made(tmp_path / "store", 3.5 * of_one)
    for number in range(6):
        table.write(rows_of(number), new_run_stamp())
        aged(table)
    assert held(table) == [3, 4, 5]
    assert table.bytes_held() <= 3.5 * of_one
    np.testing.assert_array_equal(table.read_features(keys_of(4)), vectors(4))


def test_a_relative_store_is_bounded_from_wherever_it_is_written(tmp_path, of_one, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = made("store", 1.5 * of_one)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # as a worker's
    for number in range(3):
        table.write(rows_of(number), new_run_stamp())
        aged(table)
    assert held(table) == [2] and 0 < table.bytes_held() <= 1.5 * of_one


def test_reading_is_a_use_and_looking_for_keys_is_none(tmp_path, of_one):
    table = made(tmp_path / "store", 3.5 * of_one)
    for number in range(3):
        table.write(rows_of(number), new_run_stamp())
        aged(table)
    table.index()
    table.read(keys_of(0), columns=["key", "features"])
    table.write(rows_of(3), new_run_stamp())
    assert held(table) == [0, 2, 3]


def test_tables_of_one_name_share_the_room(tmp_path, of_one):
    first = made(tmp_path / "store", 2.5 * of_one)
    second = made(tmp_path / "store", 2.5 * of_one, precision="bf16")
    first.create()
    for number in range(2):
        first.write(rows_of(number), new_run_stamp())
        aged(first)
    second.write(rows_of(2), new_run_stamp())
    assert (held(first), held(second)) == ([1], [2])
    assert os.path.exists(f"{first.uri}/_settings.json")


def test_what_has_just_been_written_stays(tmp_path, of_one):
    table = made(tmp_path / "store", 0.5 * of_one)
    for number in range(2):
        table.write(rows_of(number), new_run_stamp())
        aged(table)
    assert held(table) == [1]


def test_a_damaged_shard_takes_room_and_goes(tmp_path, of_one):
    table = made(tmp_path / "store", 2.5 * of_one)
    table.write(rows_of(0), new_run_stamp())
    (shard,) = table.shards()
    with open(shard, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"XXXX")
    assert held(table) == []  # set aside; looking again finds nothing
    aged(table)
    os.utime(f"{shard}.damaged", (0, 0))
    for number in (1, 2):
        table.write(rows_of(number), new_run_stamp())
    assert held(table) == [1, 2] and not os.path.exists(f"{shard}.damaged")


def test_who_reads_a_shard_that_has_gone_is_told(tmp_path, of_one):
    table = made(tmp_path / "store", 1.5 * of_one)
    table.write(rows_of(0), new_run_stamp())
    index = table.index()
    aged(table)
    table.write(rows_of(1), new_run_stamp())
    with pytest.raises(DamagedFile, match="deleted"):
        table.read(keys_of(0), index)


def _write_and_look(root: str, most_bytes: float, first: int) -> int:
    table = made(root, most_bytes)
    for number in range(first, first + 10):
        table.write(rows_of(number), new_run_stamp())
        table.index()
    return len(table.index().keys)


def test_processes_that_make_room_at_once_do_not_disturb_each_other(tmp_path, of_one):
    most = 5.5 * of_one
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        work = [pool.submit(_write_and_look, str(tmp_path / "store"), most, at) for at in (0, 10)]
        # Each has made room when it looks; the other's last may be above.
        assert all(1 <= each.result() <= 6 for each in work)
    table = made(tmp_path / "store", most)
    assert table.bytes_held() <= most and 4 <= len(held(table)) <= 5
