"""Ids that more than one row of a library has, found in its finished Parquet files.

Ids are compared by hashes of 64 bits: those of some files at a time, then a share of all hashes
at a time, so that no process holds more than about HELD of them. (Among a billion ids, two
different ones have one hash with probability 0.03; the first repeats are compared themselves.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import ray

from pipeline.runtime.files import read_all
from pipeline.runtime.text import hashes_of
from pipeline.scoring.output.output_folder import part_files, read_part
from pipeline.scoring.steps import REJECTED_FOLDER, SCORES_FOLDER

HELD = 5_000_000
COMPARED, SHOWN = 1000, 5
# A hash, in how many rows it is, and the places of the first and the last of those: a file's
# number and a row's in it, in the upper and the lower 32 bits.
HASHED = np.dtype([("hash", "u8"), ("rows", "i8"), ("first", "i8"), ("last", "i8")])
ROW_BITS = 32


class RepeatedIds(NamedTuple):
    """Ids of more than one row: how many, in how many rows, and the first few of them."""

    ids: int
    rows: int
    first: list[str]


def repeated_ids(output_dir: str, rows: int, part_rows: int, held: int = HELD) -> RepeatedIds:
    """Find the ids that more than one row of a scored library has.

    Parameters
    ----------
    output_dir : of jobs.score.
    rows : of the library; up to `held` of them are compared in this process, more in Ray tasks.
    part_rows : rows that a file has at most.
    held : hashes that one process may hold.

    Raises
    ------
    DamagedFile
        If a file is damaged; it was set aside.
    """
    files = part_files(output_dir, SCORES_FOLDER, REJECTED_FOLDER)
    shares, step = -(-rows // held), max(1, held // part_rows)
    if shares <= 1:
        found = [_repeated(*_hashed(output_dir, files, 0, 1))]
    else:
        hash_files = ray.remote(_hashed).options(num_returns=shares)
        hashed = [
            hash_files.remote(output_dir, files[start : start + step], start, shares)
            for start in range(0, len(files), step)
        ]
        found = ray.get([ray.remote(_repeated).remote(*share) for share in zip(*hashed)])
    first = _earliest(np.concatenate([earliest for _, _, earliest in found]))
    ids, others = (_ids_at(output_dir, files, first[name]) for name in ("first", "last"))
    same = np.array([one == other for one, other in zip(ids, others)], dtype=bool)
    return RepeatedIds(
        ids=sum(count for count, _, _ in found) - int((~same).sum()),
        rows=sum(count for _, count, _ in found) - int(first["rows"][~same].sum()),
        first=[each for each, is_same in zip(ids, same) if is_same][:SHOWN],
    )


def _hashed(output_dir: str, files: Sequence[str], start: int, shares: int) -> list[np.ndarray]:
    """HASHED of some files' ids, by shares of all hashes.

    Parameters
    ----------
    start : number of the first file.
    """
    pieces = [np.empty(0, HASHED)]
    for number, ids in enumerate(_ids(output_dir, files), start):
        piece = np.ones(len(ids), HASHED)
        piece["hash"] = hashes_of(ids)
        piece["first"] = piece["last"] = (number << ROW_BITS) + np.arange(len(ids))
        pieces.append(piece)
    merged = _merged(np.concatenate(pieces))
    share = merged["hash"] % np.uint64(shares)
    return [merged[share == each] for each in range(shares)]


def _repeated(*hashed: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Of a share: the repeated hashes and their rows, counted, and the earliest repeats."""
    merged = _merged(np.concatenate(hashed))
    repeats = merged[merged["rows"] > 1]
    return len(repeats), int(repeats["rows"].sum()), _earliest(repeats)


def _merged(hashed: np.ndarray) -> np.ndarray:
    """One row a hash."""
    hashed = hashed[np.argsort(hashed["hash"])]
    hashes = hashed["hash"]
    starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)])
    merged = hashed[starts]
    if len(merged):
        merged["rows"] = np.add.reduceat(hashed["rows"], starts)
        merged["first"] = np.minimum.reduceat(hashed["first"], starts)
        merged["last"] = np.maximum.reduceat(hashed["last"], starts)
    return merged


def _earliest(repeats: np.ndarray) -> np.ndarray:
    return repeats[np.argsort(repeats["first"])[:COMPARED]]


def _ids(output_dir: str, files: Sequence[str]) -> Iterator[list[str]]:
    """Each file's ids; damage as `read_part`."""
    for table in read_all(files, lambda file: read_part(output_dir, file, ["id"])):
        yield table["id"].to_pylist()


def _ids_at(output_dir: str, files: Sequence[str], places: np.ndarray) -> list[str]:
    """The ids at some places."""
    numbers, rows = places >> ROW_BITS, places & ((1 << ROW_BITS) - 1)
    found = [""] * len(places)
    distinct = np.unique(numbers)
    for number, ids in zip(distinct, _ids(output_dir, [files[each] for each in distinct])):
        for place in np.flatnonzero(numbers == number):
            found[place] = ids[rows[place]]
    return found
