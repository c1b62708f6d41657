"""Memory of jobs.score's driver over libraries of different sizes, each in a fresh process.

`python -m bench.score --library MUV.csv.gz --checkpoint outputs/minimol/checkpoint` scores the
first molecules of a CSV file and writes score.md.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from jsonargparse import auto_cli

from bench.report import cpu_name, markdown

MIB = 1024**2
SAMPLE_SECONDS = 0.5


def main(
    library: str, checkpoint: str, molecules: tuple[int, ...] = (10_000, 90_000), runs: str = ""
) -> None:
    """Score the first molecules of a library, with an empty store each time.

    Args:
        library: CSV file with a column `smiles`, with .gz or without.
        checkpoint: of jobs.train.
        molecules: how many of the library's, one run each.
        runs: folder to work in; a temporary one by default.
    """
    folder = Path(runs or tempfile.mkdtemp())
    rows = [scored(folder / str(count), library, checkpoint, count) for count in molecules]
    encoder = json.loads((Path(checkpoint) / "config.json").read_text())["encoder"]["encoder"]
    lines = [
        "# Memory of jobs.score's driver",
        "",
        f"`python -m bench.score --library {Path(library).name} --checkpoint …` on {cpu_name()}, "
        f"{encoder} features, an empty store each time. The driver's own memory (USS) is sampled "
        f"every {SAMPLE_SECONDS} s; its largest resident memory also counts shared libraries and "
        "what it read from Ray's object store.",
        "",
        *markdown(
            ("molecules", "scored", "rejected", "OOD",
             "own memory, first half, MiB", "second half", "most", "most resident, MiB"),
            rows,
        ),
        "",
    ]  # fmt: skip
    (Path(__file__).parent / "score.md").write_text("\n".join(lines))
    print("\n".join(lines))


def scored(folder: Path, library: str, checkpoint: str, count: int) -> list[str]:
    """A row of the table: one run over the first `count` molecules."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    first_molecules(library, count, folder / "library.csv")
    summary, samples = watched(command(folder, checkpoint), folder / "out")
    begun = [own for seconds, own in samples if seconds > (summary["before"] or 0)]
    half = len(begun) // 2
    return [
        f"{summary['rows_in']:,}", f"{summary['scored']:,}", f"{summary['rejected']:,}",
        f"{summary['ood']:,}",
        f"{statistics.median(begun[:half]):.0f}", f"{statistics.median(begun[half:]):.0f}",
        f"{max(own for _, own in samples):.0f}",
        f"{summary['driver_peak_resident_memory_gb'] * 1024:.0f}",
    ]  # fmt: skip


def first_molecules(library: str, count: int, file: Path) -> None:
    """Write the first molecules of a CSV file as one of their own."""
    with open(file, "w", newline="") as target:
        csv.writer(target).writerows([["smiles"], *([s] for s in molecules_of(library, count))])


def molecules_of(library: str, count: int) -> list[str]:
    """SMILES of the first molecules of a CSV file."""
    reader = gzip.open if library.endswith(".gz") else open
    with reader(library, "rt") as source:
        return [row["smiles"] for row in itertools.islice(csv.DictReader(source), count)]


def command(folder: Path, checkpoint: str) -> list[str]:
    """Score a folder's library.csv by its store into `out`."""
    return [
        sys.executable, "-m", "jobs.score", "--data_file", str(folder / "library.csv"),
        "--checkpoint", checkpoint, "--cache_root", str(folder / "store"),
        "--output_dir", str(folder / "out"), "--device", "cpu",
    ]  # fmt: skip


def watched(command: list[str], output: Path) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    """Run a job; its summary with `before`, the seconds before its first scores, and samples.

    A sample is the seconds since the start and the process's own memory, MiB.
    """
    start = time.monotonic()
    samples, before = [], None
    with subprocess.Popen(command) as process:
        watch = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                own = watch.memory_full_info().uss / MIB
            except psutil.Error:  # it has just ended
                break
            samples.append((time.monotonic() - start, own))
            if before is None and list(output.glob("scores/part-*")):
                before = samples[-1][0]
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(process.returncode)
    return {**json.loads((output / "run_summary.json").read_text()), "before": before}, samples


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
