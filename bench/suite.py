"""How long a paper's grid takes on stored features.

`python -m bench.suite` writes suite.md. The grid is 5 data sets × 2 encoders × 12 detectors × 10
seeds: the shipped HIV samples by scaffold and by size, and the third HIV sample split by clusters
in three ways; MiniMol's 512 features, and ECFP4 beside descriptors. `jobs.suite` runs with one seed
and one detector first, which fills the store and is not counted, then with the grid, in a new
output folder, then once more. CPU seconds are those of all its processes, Ray's among them, as they
were seen twice a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench.report import cpu_name, markdown

DETECTORS = (
    "dpo", "bce", "mse", "hinge", "knn", "mahalanobis", "lof", "isolation_forest", "tanimoto",
    "oe_knn", "oe_mahalanobis", "distance_lr",
)  # fmt: skip
SEEDS = 10
DATA = [
    "data/hiv_scaffold_sample.json.gz",
    "data/hiv_size_sample.json.gz",
    *(
        {"name": f"hiv_clusters_{seed}", "file": "data/hiv_sample.csv.gz",
         "label_column": "HIV_active", "split": {"by": "cluster", "seed": seed}}
        for seed in range(3)
    ),
]  # fmt: skip
OFTEN = 0.5  # seconds


def main() -> None:
    """Fill the store, time the grid, write the page."""
    flags = argparse.ArgumentParser(description=main.__doc__)
    flags.add_argument("--data", type=int, default=len(DATA), help="data sets: the first so many")
    flags.add_argument("--store", help="folder of the store; default: one that is made for this")
    given = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shared = {"data": DATA[: given.data], "cache_root": given.store or f"{folder}/store"}
        fill = {**shared, "detectors": ["tanimoto"], "seeds": [0]}
        _run(folder, "fill", fill)
        grid = {**shared, "detectors": list(DETECTORS), "seeds": list(range(SEEDS))}
        seconds, cpu = _run(folder, "grid", grid)
        again, again_cpu = _run(folder, "grid", grid)
        cells = json.loads(Path(folder, "grid/summary.json").read_text())["cells"]
    asked = given.data * 2 * len(DETECTORS) * SEEDS
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    rows = [
        ["the grid", f"{seconds:.0f}", f"{cpu:.0f}", f"{cpu / 2:.0f}"],
        ["the same command again", f"{again:.0f}", f"{again_cpu:.0f}", f"{again_cpu / 2:.0f}"],
    ]
    once = cells["fitted_once_for_all_seeds"]
    lines = [
        "# A grid on stored features",
        "",
        f"`python -m bench.suite` on {cpu_name()}, {os.cpu_count()} cores; load averages at "
        f"the end {load}. Data sets: {given.data}; × 2 encoders × {len(DETECTORS)} detectors × "
        f"{SEEDS} seeds are {asked:,} cells, of which {once:,} stand for {SEEDS} seeds each: "
        f"{cells['done']:,} trainings, {cells['failed']} failed.",
        "",
        *markdown(("", "s", "CPU s", "CPU s on each of two cores"), rows),
        "",
    ]  # fmt: skip
    Path(__file__).with_name("suite.md").write_text("\n".join(lines))
    print("\n".join(lines))


def _run(folder: str, name: str, grid: dict[str, Any]) -> tuple[float, float]:
    """Seconds, and CPU seconds of all processes, of one command."""
    settings = {
        "encoders": ["minimol", "ecfp+descriptors"],
        "ood_val_by": "molecule",
        "output_dir": f"{folder}/{name}",
        **grid,
    }
    config = Path(folder, f"{name}.yaml")
    config.write_text(json.dumps(settings))
    started, seen = time.perf_counter(), {}
    command = [sys.executable, "-m", "jobs.suite", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        top = psutil.Process(process.pid)
        while process.poll() is None:
            for each in (top, *_children(top)):
                try:
                    times = each.cpu_times()
                    seen[each.pid, each.create_time()] = times.user + times.system
                except psutil.Error:  # it has just ended
                    continue
            time.sleep(OFTEN)
    if process.returncode:
        raise SystemExit(f"jobs.suite ended with {process.returncode}")
    return time.perf_counter() - started, sum(seen.values())


def _children(top: psutil.Process) -> list[psutil.Process]:
    try:
        return top.children(recursive=True)
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
