"""A split of a table of molecules."""

from __future__ import annotations

import pyarrow as pa

from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.splits import make_split


def cut(molecules: pa.Table, **changes) -> dict[str, list[dict]]:
    settings = SplitSettings(data_file="table.csv", output="split.json", **changes)
    return make_split(molecules, settings).content["split"]
