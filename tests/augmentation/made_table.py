"""A table of features with a rare class, in groups that never cross splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.augmentation.settings import AugmentSettings

COLUMNS = {
    "features_column": "x", "class_column": "kind", "split_column": "part", "group_column": "g",
    "id_column": "name",
}  # fmt: skip
QUICK = {
    "steps": 20, "checkpoint_every": 20, "width": 16, "blocks": 1, "diffusion_steps": 20,
    "quality_threshold": 0.2, "classifier_epochs": 3, "classifier_width": 16, "seeds": 2,
    "bootstrap_samples": 100,
}  # fmt: skip


def columns(rows: int = 600) -> dict[str, Any]:
    """Rows of 50 groups: the first 30 train, 8 validate, 12 test; one row in nine is rare."""
    rng = np.random.default_rng(0)
    group = np.arange(rows) % 50
    rare = np.arange(rows) % 9 == 0
    features = rng.normal(size=(rows, 4)) + 1.5 * rare[:, None]
    return {
        "x": features.astype(np.float32).tolist(),
        "kind": np.where(rare, "site", "other").tolist(),
        "part": np.array(["train", "val", "test"])[np.digitize(group, [30, 38])].tolist(),
        "g": [f"protein {each}" for each in group],
        "name": [f"r{row}" for row in range(rows)],
    }


def settings_of(path: Path, changes: dict[str, Any] | None = None, **more: Any) -> AugmentSettings:
    """Settings for a table that is written to a file; `changes` replaces columns."""
    table = pa.table({**columns(), **(changes or {})})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    given = {**COLUMNS, **QUICK, "output_dir": str(path.parent / "out"), **more}
    return AugmentSettings(data_file=str(path), device="cpu", **given)
