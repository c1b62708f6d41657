"""The store: what is written is found again, whole, whatever happens to the writers."""

from __future__ import annotations

import errno
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
from fsspec.implementations.local import LocalFileSystem

from pipeline import files as files_module
from pipeline.errors import DamagedFile, InputError, RowsMissing
from pipeline.files import absolute, parquet_bytes, starting_over, write_atomically
from pipeline.molecules import molecule_key
from pipeline.store import KeyedTable, features_table, new_run_stamp

SETTINGS = {"encoder": "unimol", "precision": "fp32"}
DIM = 4


def keys_of(*numbers: int) -> list[str]:
    return [molecule_key(str(number)) for number in numbers]


def vectors(*numbers: int, shift: float = 0) -> np.ndarray:
    return np.array([[n + shift, -n, n / 7, 1] for n in numbers], dtype=np.float32)


def rows_of(*numbers: int, shift: float = 0) -> pa.Table:
    return features_table(keys_of(*numbers), vectors(*numbers, shift=shift))


@pytest.fixture
def table(tmp_path) -> KeyedTable:
    return KeyedTable(str(tmp_path / "store"), "features", SETTINGS)


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


NOISE = np.random.default_rng(0).random((200, 64), dtype=np.float32)


@pytest.fixture
def noisy(table) -> Path:
    """The only shard of a table with 200 rows of noise."""
    table.write(features_table(keys_of(*range(200)), NOISE), new_run_stamp())
    (shard,) = map(Path, table.shards())
    return shard


@pytest.mark.parametrize("bit", [0, 7])
def test_a_changed_bit_is_told_with_its_shard_which_is_set_aside(table, noisy, bit):
    table.write(rows_of(500), new_run_stamp())
    content = bytearray(noisy.read_bytes())
    content[content.index(NOISE[150, 30:34].tobytes()) + 5] ^= 1 << bit
    noisy.write_bytes(content)
    with pytest.raises(DamagedFile, match=f"{noisy.name} is damaged.* checksum"):
        table.read_features(keys_of(*range(200)))
    assert Path(f"{noisy}.damaged").read_bytes() == content
    assert [key in table.index() for key in keys_of(3, 500)] == [False, True]
    table.write(features_table(keys_of(*range(200)), NOISE), new_run_stamp())  # computed anew
    np.testing.assert_array_equal(table.read_features(keys_of(*range(200))), NOISE)


def damaged_keys(content: bytes) -> bytes:
    return content.replace(keys_of(7)[0].encode(), b"x" * 32)


def renamed_column(content: bytes) -> bytes:
    return content.replace(b"\x03key", b"\x03kez")


@pytest.mark.parametrize(
    "damage",
    [lambda c: b"", lambda c: c[:30], lambda c: c[:-1], damaged_keys, renamed_column],
)
def test_an_index_tells_a_damaged_shard_and_the_next_is_without_it(table, noisy, damage):
    table.write(rows_of(500), new_run_stamp())
    noisy.write_bytes(damage(noisy.read_bytes()))
    with pytest.raises(DamagedFile, match=f"^{noisy} is damaged"):
        table.index()
    assert list(table.index().keys) == [keys_of(500)[0].encode()]


def test_all_damaged_shards_are_set_aside_at_once(table):
    for number in range(4):
        table.write(rows_of(number), new_run_stamp())
    index = table.index()
    for shard in table.shards()[:3]:
        Path(shard).write_bytes(b"")
    with pytest.raises(DamagedFile, match="and 2 other files"):
        table.read(keys_of(*range(4)), index)
    assert len(table.shards()) == 1
    with pytest.raises(RowsMissing, match=f"3 of 4 keys .* {Path(index.shards[0]).name}.damaged"):
        table.read(keys_of(*range(4)))


@pytest.fixture
def faults(monkeypatch) -> list[OSError | None]:
    """What the next openings of files raise, the last one first."""
    working, faults = LocalFileSystem.open, []

    def faulty(self, *args, **kwargs):
        fault = faults.pop() if faults else None
        if fault:
            raise fault
        return working(self, *args, **kwargs)

    monkeypatch.setattr(LocalFileSystem, "open", faulty)
    return faults


def test_a_fault_of_the_network_or_the_disk_sets_nothing_aside(table, noisy, faults):
    index, fault = table.index(), OSError(errno.EIO, os.strerror(errno.EIO))
    faults += [fault]
    np.testing.assert_array_equal(table.read_features(keys_of(5), index), NOISE[[5]])
    faults += [fault, fault]
    with pytest.raises(InputError, match=f"cannot read {noisy}: Input/output error; run again"):
        table.read_features(keys_of(5), index)
    assert noisy.exists()


def test_too_little_memory_sets_nothing_aside(table, noisy, monkeypatch):
    def fails(*_args):
        raise pa.ArrowMemoryError("malloc failed")

    index = table.index()
    monkeypatch.setattr(files_module, "_verified", fails)
    with pytest.raises(MemoryError):
        table.read_features(keys_of(5), index)
    assert noisy.exists()


def test_of_two_readers_that_meet_the_damage_both_tell_it(table, noisy, faults):
    index = table.index()
    faults += [FileNotFoundError(), None]  # the other one is faster between the two readings
    noisy.write_bytes(b"")
    with pytest.raises(DamagedFile, match=noisy.name):
        table.read(keys_of(1), index)


def test_a_shard_that_another_process_set_aside_is_a_damaged_one(table, noisy):
    index = table.index()
    noisy.rename(f"{noisy}.damaged")
    with pytest.raises(DamagedFile, match=noisy.name):
        table.read(keys_of(1), index)


def test_a_job_starts_over_once_for_each_damage():
    damages = ["a is damaged", "b is damaged"]

    def work(result: str) -> str:
        if damages:
            raise DamagedFile(damages.pop())
        return result

    assert starting_over(work, "done") == "done"
    damages += ["a is damaged"] * 3
    with pytest.raises(DamagedFile, match="a is damaged"):
        starting_over(work, "done")
    assert len(damages) == 1
    damages += map(str, range(1000))  # the machine damages what it writes
    with pytest.raises(DamagedFile):
        starting_over(work, "done")
    assert len(damages) > 800


def test_a_full_disk_is_told_and_nothing_is_left_of_the_file(table, monkeypatch):
    """/dev/full answers every write as a full disk does."""
    table.create()
    name = uuid.uuid4()
    monkeypatch.setattr(uuid, "uuid4", lambda: name)
    partial = Path(table.uri, f".{name.hex}.partial")
    partial.symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"cannot write .*\.parquet: No space left on device"):
        table.write(rows_of(1, 2), new_run_stamp())
    assert files(table) == ["_settings.json"]
