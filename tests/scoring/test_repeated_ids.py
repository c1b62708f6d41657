"""Repeated ids of a library, against a plain count, however little a process may hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.score import _repeated
from pipeline.molecules.rejected import REJECTED
from pipeline.runtime.errors import DamagedFile
from pipeline.scoring.chunks import chunk_name
from pipeline.scoring.levels import SCORES
from pipeline.scoring.output import repeated_ids as module
from pipeline.scoring.output.repeated_ids import RepeatedIds, repeated_ids
from pipeline.scoring.steps import REJECTED_FOLDER, SCORES_FOLDER, write


def write_library(folder: Path, chunks: list[tuple[list[str], list[str]]]) -> int:
    """Files of a library of two data files: each chunk's ids, scored and rejected; its rows."""
    for number, (scored, rejected) in enumerate(chunks):
        name = chunk_name(number % 2, number // 2)
        for part, schema, ids in (
            (SCORES_FOLDER, SCORES, scored), (REJECTED_FOLDER, REJECTED, rejected)
        ):  # fmt: skip
            if ids or part == SCORES_FOLDER:
                rows = [{"id": each} for each in ids]
                write(str(folder), part, name, pa.Table.from_pylist(rows, schema=schema))
    return sum(len(scored) + len(rejected) for scored, rejected in chunks)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> tuple[Path, list[str]]:
    """Forty chunks of ten rows, among their ids some that repeat; the ids in order."""
    folder, rng = tmp_path_factory.mktemp("ids"), np.random.default_rng(0)
    ids = [f"mol {i}" for i in rng.choice(3000, 395)] + ["NA"] * 5
    rng.shuffle(ids)
    chunks = [(ids[i : i + 8], ids[i + 8 : i + 10]) for i in range(0, 400, 10)]
    write_library(folder, chunks)
    return folder, [each for file in (0, 1) for chunk in chunks[file::2] for each in sum(chunk, [])]


def expected(ids: list[str]) -> RepeatedIds:
    repeats = {each: count for each, count in Counter(ids).items() if count > 1}
    return RepeatedIds(len(repeats), sum(repeats.values()), list(repeats)[:5])


def test_repeats_across_files_and_chunks_are_found(library):
    folder, ids = library
    assert expected(ids).ids > 20
    assert repeated_ids(str(folder), len(ids), part_rows=10) == expected(ids)


def test_little_room_changes_nothing(ray_session, library):
    folder, ids = library
    found = repeated_ids(str(folder), len(ids), part_rows=10, held=100)  # 4 shares
    assert found == expected(ids)


def test_no_process_holds_more_than_it_may(library, monkeypatch):
    """It holds the hashes of some files, or a share of all."""
    folder, ids = library
    sizes = []
    merged = module._merged
    monkeypatch.setattr(module, "_merged", lambda rows: [sizes.append(len(rows)), merged(rows)][1])

    class Remote:
        def __init__(self, function):
            self.remote = function

        def options(self, num_returns):
            return self

    monkeypatch.setattr(module.ray, "remote", Remote)
    monkeypatch.setattr(module.ray, "get", lambda found: found)
    found = repeated_ids(str(folder), len(ids), part_rows=10, held=50)
    assert found == expected(ids)
    assert len(sizes) >= 16 and max(sizes) < 90  # 50, but for chance


def test_a_library_of_one_id_and_one_of_different_ids(tmp_path):
    rows = write_library(tmp_path / "same", [(["x"] * 5, ["x"]), (["x"], [])])
    assert repeated_ids(str(tmp_path / "same"), rows, 6) == RepeatedIds(1, 7, ["x"])
    rows = write_library(tmp_path / "others", [(["a", "b"], ["c"]), (["A"], []), ([], ["b "])])
    assert repeated_ids(str(tmp_path / "others"), rows, 6) == RepeatedIds(0, 0, [])
    rows = write_library(tmp_path / "rejected", [(["a"], []), ([], ["a", "b"])])
    assert repeated_ids(str(tmp_path / "rejected"), rows, 6) == RepeatedIds(1, 2, ["a"])


def test_repeats_are_told_and_nothing_without(tmp_path):
    assert _repeated(0, 0, []) == []
    assert _repeated(7, 1500, ["a", "b"]) == ["ids         7 repeat, in 1,500 rows: a, b, …"]
    assert _repeated(1, 2, ["a"]) == ["ids         1 repeat, in 2 rows: a"]


def test_ids_that_share_a_hash_are_no_repeat(tmp_path, monkeypatch):
    def first_letters(texts):
        return np.array([ord(text[0]) for text in texts], np.uint64)

    monkeypatch.setattr(module, "hashes_of", first_letters)
    rows = write_library(tmp_path, [(["a1", "b", "c"], []), (["a2", "b"], [])])
    assert repeated_ids(str(tmp_path), rows, 3) == RepeatedIds(1, 2, ["b"])


def test_a_damaged_file_of_rejected_rows_makes_its_chunk_anew(tmp_path):
    rows = write_library(tmp_path, [(["a"], ["b"])])
    (file,) = (tmp_path / REJECTED_FOLDER).iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DamagedFile):
        repeated_ids(str(tmp_path), rows, 2)
    assert not list((tmp_path / SCORES_FOLDER).iterdir())
