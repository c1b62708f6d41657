"""The store: tables of rows keyed by molecule, as Parquet shards on any filesystem.

A table lives in a folder named by a hash of what decides its rows (`_settings.json` beside the
shards says what that was), so other settings never find these rows. A shard is written whole
or not at all and never changes, so readers and writers need no locks. If a molecule is in
several shards, the newest run's row counts. A shard whose checksums are wrong is set aside, and
its rows are computed anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.runtime.errors import RowsMissing
from pipeline.runtime.files import absolute, parquet_bytes, read_all, read_parquet, write_atomically

_KEY_TYPE = "S32"  # the hex digits of `pipeline.molecules.identity.molecule_key`


def new_run_stamp() -> str:
    """A name for one run's shards; later runs sort after earlier ones."""
    nanoseconds = time.time_ns()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(nanoseconds // 10**9))
    return f"{stamp}.{nanoseconds % 10**9:09d}"


@dataclass(frozen=True)
class Index:
    """Where each molecule's row is: sorted keys (n,), shard number (n,), row in shard (n,)."""

    shards: list[str]
    keys: np.ndarray
    shard: np.ndarray
    row: np.ndarray

    def find(self, keys: Sequence[str]) -> np.ndarray:
        """Positions in this index of the keys asked for, −1 where a key is absent."""
        wanted = np.asarray(keys, dtype=_KEY_TYPE)
        if len(self.keys) == 0:
            return np.full(len(wanted), -1)
        position = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
        return np.where(self.keys[position] == wanted, position, -1)

    def __contains__(self, key: str) -> bool:
        return bool(self.find([key])[0] >= 0)


class KeyedTable:
    """One table of the store.

    Parameters
    ----------
    root : folder or URI of the store.
    name : what the rows are: "conformers", "features", "rejections".
    settings : JSON-ready; everything besides the molecule that decides a row.
    dense : see `parquet_bytes`.
    """

    def __init__(self, root: str, name: str, settings: dict[str, Any], dense: bool = False):
        self.root, self.name, self.settings, self.dense = root, name, settings, dense
        canonical = json.dumps(settings, sort_keys=True)
        self.key = hashlib.blake2b(canonical.encode(), digest_size=10).hexdigest()
        self.uri = f"{absolute(root)}/{name}/{self.key}"

    def create(self) -> None:
        """Make the table's folder and say in it what decides its rows."""
        content = json.dumps(self.settings, indent=2, sort_keys=True).encode()
        write_atomically(f"{self.uri}/_settings.json", content)

    def write(self, rows: pa.Table, run: str) -> None:
        """Add rows as one shard, atomically. Repeating a write replaces it by itself.

        Parameters
        ----------
        rows : has a string column `key`.
        run : of `new_run_stamp`; decides which row counts where a key is in several shards.
        """
        if rows.num_rows == 0:
            return
        digest = hashlib.blake2b(digest_size=10)
        for key in rows.column("key").to_pylist():
            digest.update(key.encode())
        content = parquet_bytes(rows, self.dense)
        write_atomically(f"{self.uri}/{run}-{digest.hexdigest()}.parquet", content)

    def shards(self) -> list[str]:
        """Paths of the table's shards, oldest run first."""
        return self._files(".parquet")

    def _files(self, ending: str) -> list[str]:
        fs, path = fsspec.url_to_fs(self.uri)
        if not fs.exists(path):
            return []
        fs.invalidate_cache(path)
        return sorted(f for f in fs.ls(path, detail=False) if f.endswith(ending))

    def index(self) -> Index:
        """Read every shard's keys; DamagedFile as `read`."""
        shards = self.shards()
        columns = read_all(shards, lambda shard: self.read_shard(shard, ["key"]))
        keys = [np.array(each["key"].to_pylist(), dtype=_KEY_TYPE) for each in columns]
        if not keys:
            return Index([], np.empty(0, _KEY_TYPE), np.empty(0, int), np.empty(0, int))
        # Newest first, so that the first place of a key is the one that counts.
        every_key = np.concatenate(keys[::-1])
        shard = np.concatenate([np.full(len(k), i) for i, k in enumerate(keys)][::-1])
        row = np.concatenate([np.arange(len(k)) for k in keys][::-1])
        unique, first = np.unique(every_key, return_index=True)
        return Index(shards, unique, shard[first], row[first])

    def read_shard(
        self, shard: str, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
    ) -> pa.Table:
        """One shard's rows; `columns`, `optional` and DamagedFile as `read_parquet`."""
        fs, _ = fsspec.url_to_fs(self.uri)
        return read_parquet(fs, shard, columns, optional=optional)

    def read(
        self,
        keys: Sequence[str],
        index: Index | None = None,
        columns: Sequence[str] | None = None,
        optional: Sequence[str] = (),
    ) -> pa.Table:
        """Rows of the molecules asked for, in that order.

        Parameters
        ----------
        columns, optional : as `read_parquet`; where one shard has an optional column and another
            lacks it, the other's rows have nulls there.

        Raises
        ------
        RowsMissing
            If a molecule is not in the table.
        DamagedFile
            If a shard is damaged; it was set aside then, and so were others that are.
        """
        index = index or self.index()
        position = self._positions(keys, index)
        numbers = np.unique(index.shard[position])
        order = [np.flatnonzero(index.shard[position] == number) for number in numbers]

        rows = {index.shards[n]: index.row[position[here]] for n, here in zip(numbers, order)}

        def read(shard: str) -> pa.Table:
            return self.read_shard(shard, columns, optional).take(rows[shard])

        pieces = list(read_all(list(rows), read))
        if not pieces:
            return pa.table({"key": pa.array([], pa.string())})
        return _together(pieces).take(np.argsort(np.concatenate(order)))

    def _positions(self, keys: Sequence[str], index: Index) -> np.ndarray:
        position = index.find(keys)
        if (position < 0).any():
            absent = [k for k, p in zip(keys, position) if p < 0]
            damaged = [shard.rsplit("/", 1)[-1] for shard in self._files(".damaged")]
            raise RowsMissing(
                f"{len(absent)} of {len(keys)} keys are not in {self.uri}, the first: {absent[0]}"
                + (f"; damaged there: {', '.join(damaged)}" if damaged else "")
            )
        return position

    def places(self, keys: Sequence[str], index: Index) -> pa.Table:
        """Where molecules' rows are: `key`, `shard`, `row`, ordered by shard and row.

        Tasks read such rows with `read_places`. Errors as `read`.
        """
        position = self._positions(keys, index)
        table = pa.table(
            {
                "key": pa.array(list(keys), pa.string()),
                "shard": pa.array([index.shards[i] for i in index.shard[position]], pa.string()),
                "row": pa.array(index.row[position], pa.int64()),
            }
        )
        return table.sort_by([("shard", "ascending"), ("row", "ascending")])

    def read_places(self, places: pa.Table) -> pa.Table:
        """The rows that `places` points to, in that order."""
        pieces = []
        for shard in pc.unique(places["shard"]).to_pylist():
            rows = places.filter(pc.equal(places["shard"], shard))["row"]
            pieces.append(self.read_shard(shard).take(rows))
        return _together(pieces)

    def bytes_per_row(self, keys: Sequence[str]) -> float:
        """What a row takes in the store: of the shards that hold these keys; errors as `read`."""
        index = self.index()
        numbers = np.unique(index.shard[self._positions(keys, index)])
        fs, _ = fsspec.url_to_fs(self.uri)
        size = sum(fs.size(index.shards[number]) for number in numbers)
        return size / int(np.isin(index.shard, numbers).sum())

    def read_features(self, keys: Sequence[str], index: Index | None = None) -> np.ndarray:
        """Feature vectors (n, d) of the molecules asked for, in that order; errors as `read`."""
        return feature_matrix(self.read(keys, index))


class Snapshot(KeyedTable):
    """A table as it is now: its index is read once, and travels with it to other processes.

    Parameters
    ----------
    keep : whether rows that are written go to the table, or nowhere.
    """

    def __init__(self, table: KeyedTable, keep: bool):
        self.__dict__.update(table.__dict__)
        self.keep = keep
        self._index = table.index()

    def index(self) -> Index:
        """Where rows were when this was made."""
        return self._index

    def write(self, rows: pa.Table, run: str) -> None:
        """As `KeyedTable.write`, if rows are kept."""
        if self.keep:
            super().write(rows, run)


def _together(pieces: list[pa.Table]) -> pa.Table:
    """Shards' rows as one table; a column that some versions did not write is null there."""
    return pa.concat_tables(pieces, promote_options="default")


def feature_matrix(rows: pa.Table) -> np.ndarray:
    """The vectors (n, d) of a features table's rows, in memory of their own."""
    column = rows["features"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False).copy()
    return flat.reshape(rows.num_rows, column.type.list_size)


def features_table(
    keys: Sequence[str], features: np.ndarray, structures: Sequence[str | None] | None = None
) -> pa.Table:
    """Rows for a features table: `key`, `features` (a fixed-size list), and `structure` if given.

    Shards of earlier versions lack the structures.
    """
    flat = pa.array(np.ascontiguousarray(features).ravel())
    vectors = pa.FixedSizeListArray.from_arrays(flat, features.shape[1])
    columns = {"key": pa.array(keys, pa.string()), "features": vectors}
    if structures is not None:
        columns["structure"] = pa.array(structures, pa.string())
    return pa.table(columns)
