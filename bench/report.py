"""What all measurements share: molecules, the machine's name, times, tables."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def moses(count: int) -> list[str]:
    """The first canonical SMILES of MOSES' scaffold test set, from the wheel `molsets`."""
    from pipeline.molecules.identity import canonicalize

    spec = importlib.util.find_spec("moses")
    if spec is None:
        raise SystemExit("the package molsets is not installed; run `make bench`")
    path = Path(spec.submodule_search_locations[0]) / "dataset" / "data" / "test_scaffolds.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = [row["SMILES"] for _, row in zip(range(count), csv.DictReader(file))]
    return [canonicalize(smiles) for smiles in rows]


def seconds_of(work: Callable[[], Any]) -> float:
    """Wall-clock seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cpu_name() -> str:
    """The processor, and the units for bf16 that it has."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if f" {unit}" in text]
    return f"{names[0] if names else platform.processor()} ({', '.join(units) or 'no bf16 units'})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table."""
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]


def with_interval(found: Sequence[float], sign: str = "") -> str:
    """Of a value and both ends of its interval; `sign` "+" shows it of positive ones."""
    value, low, high = found
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
