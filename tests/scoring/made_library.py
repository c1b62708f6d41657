"""How the small library of these tests is scored, and what came of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.scoring.settings import ScoreSettings

SALT = "[Na+].[Cl-]"  # whose atoms RDKit puts onto each other
BAD_LINES = {7: "nonsense", 20: "", 21: "[H][H]"}


def settings(home: Path, name: str, **changes) -> ScoreSettings:
    usual = {
        "data_file": str(home / "library.smi"), "cache_root": str(home / "store"), "alpha": 0.1,
        "chunk_size": 8, "top": 3, "device": "cpu", "encoder_workers": 1,
    }  # fmt: skip
    return ScoreSettings(
        checkpoint=str(home / "checkpoint"), output_dir=str(home / name), **{**usual, **changes}
    )


def table(folder: Path, name: str) -> list[dict]:
    files = sorted((folder / name).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
