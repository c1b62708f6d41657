"""Structures of users' files: the flow over a folder, and what runs on workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import fsspec
import pyarrow as pa
import ray.data

from pipeline.folding.features import backbone_features
from pipeline.folding.files.library import library
from pipeline.folding.files.matching import CHAINS, FileIndex, Place
from pipeline.folding.files.reading import (
    ENDINGS,
    Chain,
    is_structure_file,
    protein_chains,
    read_bytes,
)
from pipeline.folding.tables import NAME, OUTCOMES, identity, kept_rows, outcome, structure_row
from pipeline.runtime.errors import InputError, RowRejected
from pipeline.runtime.files import absolute
from pipeline.store.bounded import BoundedTable

FEW = 64  # files that are read before Ray's workers would have started
TASK_FILES = 32


@dataclass(frozen=True)
class FromFiles:
    """Structures from a folder's files.

    Attributes
    ----------
    folder : absolute path or URI.
    index : what its files hold.
    table : of the store.
    """

    folder: str
    index: FileIndex
    table: BoundedTable
    rejections = None  # files are soon read again
    label = "files"

    @classmethod
    def of(cls, folder: str, root: str, most_gb: float) -> FromFiles:
        """Read all files of a folder once, for their sequences.

        Raises
        ------
        InputError
            As `structure_files`.
        """
        folder = absolute(folder)  # workers' current folders are others
        files = structure_files(folder)
        rows = pa.table({"file": pa.array(files, pa.string())})
        index = FileIndex(pa.concat_tables(_over(rows, chains_of, {"folder": folder})))
        decides = identity("folder", files=index.digest, gemmi=version("gemmi"))
        table = BoundedTable(root, NAME, decides, most_gb, dense=True)
        return cls(folder, index, table)

    @property
    def summary(self) -> dict[str, Any]:
        """What was read: files, those that could not be, and chains that are no proteins'."""
        return {"files": self.index.summary()}

    def sources(self, wanted: pa.Table, ids: dict[str, list[str]]) -> list[str | RowRejected]:
        """Where the structure of each wanted sequence is to come from, or why there is none."""
        return [self._source(row, ids[row["key"]]) for row in wanted.to_pylist()]

    def _source(self, row: dict[str, Any], ids: list[str]) -> str | RowRejected:
        try:
            return str(self.index.place_of(row["smiles"], ids))
        except RowRejected as rejection:
            return rejection

    def outcomes(self, todo: pa.Table, run: str) -> Iterator[pa.Table]:
        """Make what is to do (`key`, `smiles`, `source`); OUTCOMES, as they come."""
        step = {"folder": self.folder, "table": self.table, "run": run}
        yield from _over(todo.sort_by("source"), keep_structures, step)


def structure_files(folder: str) -> list[str]:
    """The structure files of a folder and the folders in it, by their names below it.

    Raises
    ------
    InputError
        If there are none, or gemmi is not installed.
    """
    library()
    try:
        fs, top = fsspec.url_to_fs(absolute(folder))
        found = sorted(fs.find(top))
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"--structure_folder {folder}: {error}") from None
    below = (path[len(top.rstrip("/")) + 1 :] for path in found)
    shown = [name for name in below if not any(part[:1] == "." for part in name.split("/"))]
    files = [name for name in shown if is_structure_file(name)]
    if not files:
        raise InputError(
            f"--structure_folder {folder}: no file in it ends in {', '.join(ENDINGS)}, or one of "
            "these with .gz"
        )
    return files


def _over(
    rows: pa.Table, work: Callable[..., pa.Table], step: dict[str, Any]
) -> Iterator[pa.Table]:
    """What some work makes of rows with a `file`, here or on all cores, if they are many."""
    tasks = [rows.slice(at, TASK_FILES) for at in range(0, rows.num_rows, TASK_FILES)]
    if rows.num_rows <= FEW:
        yield from (work(task, **step) for task in tasks)
        return
    flow = ray.data.from_arrow(tasks).map_batches(
        work, fn_kwargs=step, batch_format="pyarrow", batch_size=None, num_cpus=1
    )
    yield from flow.iter_batches(batch_size=None, batch_format="pyarrow")


def chains_of(files: pa.Table, folder: str) -> pa.Table:
    """The chains of some files: CHAINS."""
    rows = [row for file in files["file"].to_pylist() for row in _chains_of(file, folder)]
    return pa.Table.from_pylist(rows, schema=CHAINS)


def _chains_of(file: str, folder: str) -> Iterator[dict[str, Any]]:
    row: dict[str, Any] = {"file": file, "sha256": ""}
    try:
        text, row["sha256"] = read_bytes(f"{folder}/{file}")
        chains, others = protein_chains(text, file)
        if not chains and not others:
            raise RowRejected("the file has no chain of residues")
    except RowRejected as rejection:
        yield row | {"reason": str(rejection)}
        return
    for name, reason in others.items():
        yield row | {"chain": name, "reason": reason}
    for chain in chains:
        yield row | {
            "chain": chain.name, "sequence": chain.sequence, "observed": chain.observed,
        }  # fmt: skip


def keep_structures(batch: pa.Table, folder: str, table: BoundedTable, run: str) -> pa.Table:
    """Put structures of chosen chains into the store: OUTCOMES of `key`, `smiles`, `source`."""
    made, outcomes = [], []
    known: dict[str, Sequence[Chain]] = {}
    for row in batch.to_pylist():
        place = Place.of(row["source"])
        try:
            if place.file not in known:
                text, _ = read_bytes(f"{folder}/{place.file}")
                known = {place.file: protein_chains(text, place.file)[0]}
            chain = next((c for c in known[place.file] if c.name == place.chain), None)
            if chain is None or chain.sequence != row["smiles"]:
                raise RowRejected("its structure file has changed meanwhile; run again")
            features = backbone_features(chain.backbone, chain.plddt)
            made.append(structure_row(row["key"], features, row["source"], chain.notes))
            outcomes.append(outcome(row))
        except RowRejected as rejection:
            outcomes.append(outcome(row, str(rejection)))
    table.write(kept_rows(made), run)
    return pa.Table.from_pylist(outcomes, schema=OUTCOMES)
