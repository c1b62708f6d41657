"""Small data files, written and read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.molecules.formats import read_rows
from pipeline.molecules.reading.raw_rows import SPLITS
from pipeline.molecules.settings import SourceSettings
from pipeline.molecules.sources import Molecules, parse_rows

SMILES = ["OCC", "c1ccccc1", "CC(=O)O"]
CANONICAL = ["CCO", "c1ccccc1", "CC(=O)O"]
CSV = "smiles,y,group\nOCC,1,a\nc1ccccc1,0,b\nCC(=O)O,1,b\n"
DRUGOOD = {
    "split": {
        split: [{"smiles": smiles, "cls_label": i % 2, "domain_id": 10 + i}]
        for i, (split, smiles) in enumerate(zip(SPLITS, ["C", "CC", "CCC", "CO", "CN"]))
    },
    "cfg": {"ignored": True},
}


def rows(path: Path | str, **columns: str) -> pa.Table:
    return read_rows(SourceSettings(data_file=str(path), **columns))


def read(path: Path | str, **columns: str):
    return read_molecules(SourceSettings(data_file=str(path), **columns))


def save(path: Path, content: str | bytes) -> Path:
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def parquet(path: Path, **columns: list) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def read_molecules(settings: SourceSettings) -> Molecules:
    """A data file's molecules."""
    return parse_rows(read_rows(settings), settings)
