"""Damaged shards, full disks, faults of the network: told, set aside, made anew."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.runtime import files as files_module
from pipeline.runtime.errors import DamagedFile, InputError, RowsMissing
from pipeline.runtime.files import starting_over
from pipeline.store.keyed_table import KeyedTable, features_table, new_run_stamp
from tests.store.made_rows import keys_of, rows_of

NOISE = np.random.default_rng(0).random((200, 64), dtype=np.float32)


def files(table: KeyedTable) -> list[str]:
    return sorted(os.listdir(table.uri))


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
