"""Tables of the store that together take no more room than they may: what was unused longest goes.

Room is counted over all tables of one name, whatever their settings, and whole shards go. A shard's
last use is its file's modification time, which reading its rows renews on a local filesystem; on
an object store it stays the time of writing, so that the oldest go. There are no locks: processes
that make room at once choose the same shards, and one that finds a shard gone looks again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from pipeline.runtime.errors import DamagedFile
from pipeline.store.keyed_table import Index, KeyedTable

log = logging.getLogger(__name__)

GIB = 1024**3
TOUCH_SECONDS = 60.0  # a shard that a process reads again and again is renewed so often
_LOOKS = 10  # at the table, while others make room in it


class BoundedTable(KeyedTable):
    """A `KeyedTable` whose name has a bound.

    Parameters
    ----------
    most_gb : what all tables of this name may take, GiB.
    """

    def __init__(
        self, root: str, name: str, settings: dict[str, Any], most_gb: float, dense: bool = False
    ):
        super().__init__(root, name, settings, dense)
        self.most_gb = most_gb
        self.folder = self.uri.rsplit("/", 1)[0]  # found now: workers' current folders are others
        self._renewed: dict[str, float] = {}

    def write(self, rows: pa.Table, run: str) -> None:
        """As `KeyedTable.write`; then makes room."""
        super().write(rows, run)
        if rows.num_rows:
            self.make_room()

    def index(self) -> Index:
        """As `KeyedTable.index`; counts as no use of the rows."""
        for _ in range(_LOOKS - 1):
            with suppress(DamagedFile):  # gone meanwhile, or set aside: it's listed no more
                return super().index()
        return super().index()

    def read_shard(
        self, shard: str, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
    ) -> pa.Table:
        """As `KeyedTable.read_shard`; reading more than keys is a use."""
        rows = super().read_shard(shard, columns, optional)
        if columns is None or list(columns) != ["key"]:
            self._renew(shard)
        return rows

    def _renew(self, shard: str) -> None:
        fs, _ = fsspec.url_to_fs(self.uri)
        now = time.monotonic()
        known = self._renewed.get(shard)
        if isinstance(fs, LocalFileSystem) and (known is None or now - known > TOUCH_SECONDS):
            self._renewed[shard] = now
            with suppress(OSError):  # it has just gone, or the store is for reading only
                os.utime(shard)

    def make_room(self) -> None:
        """Remove the shards that were not used longest, until the rest is within the bound.

        The newest stays, however large it is.
        """
        files = sorted(self._every_file())
        excess = sum(size for _, _, size in files) - self.most_gb * GIB
        gone = 0
        fs, _ = fsspec.url_to_fs(self.uri)
        for _, path, size in files[:-1]:
            if excess <= 0:
                break
            with suppress(FileNotFoundError):  # another process was faster
                fs.rm_file(path)
            excess -= size
            gone += 1
        if gone:
            log.info(
                "%s: %s shards that were not used longest removed, to stay within %s GiB",
                self.folder, gone, f"{self.most_gb:g}",
            )  # fmt: skip

    def bytes_held(self) -> int:
        """What all tables of this name take."""
        return sum(size for _, _, size in self._every_file())

    def _every_file(self) -> Iterator[tuple[float, str, int]]:
        """Last use (seconds), path and bytes of each shard, damaged ones too, of every table."""
        fs, folder = fsspec.url_to_fs(self.folder)
        fs.invalidate_cache(folder)
        for path, found in fs.find(folder, detail=True).items():
            name = path.rsplit("/", 1)[-1]
            if not name.startswith(("_", ".")):
                with suppress(FileNotFoundError):
                    yield fs.modified(path).timestamp(), path, found["size"]
