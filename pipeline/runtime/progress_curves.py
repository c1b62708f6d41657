"""The file of curves that a training's first worker writes, as lines in the driver's log."""

from __future__ import annotations

import csv
import io
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import fsspec

from pipeline.runtime.files import remove

log = logging.getLogger(__name__)

WATCH_SECONDS = 5.0

Line = Callable[[dict[str, str]], str]


@contextmanager
def watched(curves: str, line: Line, told: int = 0) -> Iterator[None]:
    """Log each new line that the workers add to the curves.

    Parameters
    ----------
    curves : path or URI of the CSV file; what an earlier run left there goes.
    line : what is logged of a row.
    told : first rows that are not logged.
    """
    remove(curves)
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(curves, line, told, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(curves: str, line: Line, told: int, ended: threading.Event) -> None:
    fs, path = fsspec.url_to_fs(curves)
    while not ended.wait(WATCH_SECONDS):
        fs.invalidate_cache()
        if not fs.exists(path):
            continue
        rows = list(csv.DictReader(io.StringIO(fs.cat_file(path).decode())))
        for row in rows[told:]:
            log.info("%s", line(row))
        told = max(told, len(rows))
