"""What jobs.split calls: any table of molecules to a DrugOOD-format split file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from typing import Any

from pipeline.molecules.formats import read_rows
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.sources import first_of_each, parse_rows
from pipeline.molecules.splits import make_split
from pipeline.runtime.cluster import start_ray
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_atomically


def run_splitting(settings: SplitSettings) -> dict[str, Any]:
    """Cut a table and write the split file.

    Returns
    -------
    dict
        `rows_in`, `repeated` (rows that repeat a molecule), `rejected`, `reasons` (of rejected
        rows, with their counts) and `sizes` (molecules of each split).

    Raises
    ------
    InputError
        If the file or a setting is wrong, or a split would be empty.
    """
    if not settings.output.endswith((".json", ".json.gz")):
        raise InputError(f"--output {settings.output}: must end in .json or .json.gz")
    if (settings.by == "column") != (settings.column is not None):
        raise InputError("--by column and --column NAME go together")
    if settings.by == "column":
        settings = replace(settings, domain_column=settings.column)
    rows = read_rows(settings)
    start_ray()
    source = parse_rows(rows, settings)
    molecules = first_of_each(source.molecules)
    content = make_split(molecules, settings)
    text = json.dumps(content, separators=(",", ":")).encode()
    if settings.output.endswith(".gz"):
        text = gzip.compress(text, mtime=0)  # no time stamp: the same split, the same bytes
    write_atomically(settings.output, text)
    return {
        "rows_in": source.rows,
        "repeated": source.molecules.num_rows - molecules.num_rows,
        "rejected": source.rejected.num_rows,
        "reasons": Counter(source.rejected["reason"].to_pylist()),
        "sizes": {name: len(items) for name, items in content["split"].items()},
    }
