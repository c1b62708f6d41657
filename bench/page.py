"""How long a page of many scored molecules takes, and how large it is.

`python -m bench.page` writes page.md: jobs.report on made-up scores of MOSES' molecules (install
molsets first, as `make bench` does), each size in a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import cpu_name, markdown, moses

SIZES = (1_000, 10_000, 100_000)
CHUNK = 10_000  # rows of a part, as jobs.score writes for such libraries
TRAINING = 5_000  # training molecules of either kind
RUNS = 3


def write_scores(folder: Path, smiles: list[str]) -> None:
    """A folder as of jobs.score, of energies drawn at random; a fifth lies outside."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.scoring.levels import SCORES

    rng, n = np.random.default_rng(0), len(smiles)
    energy = rng.normal(0, 1, n) + 3 * (rng.random(n) < 0.2)
    known = [smiles[i] for i in rng.integers(0, n, n)]
    columns = {
        "id": [f"ZINC{i:012d}" for i in range(n)], "smiles": smiles, "energy": energy,
        "p_value": rng.random(n), "is_ood": energy > 2, "structure": ["3d"] * n,
        "in_training": np.zeros(n, bool), "nearest_id": [f"T{i}" for i in range(n)],
        "nearest_smiles": known, "nearest_similarity": rng.random(n),
        "prediction": rng.normal(6, 1, n), "expected_error": rng.gamma(2, 0.3, n),
        "lower": rng.random(n), "upper": rng.random(n), "error_scale": rng.random(n),
    }  # fmt: skip
    table = pa.table(columns).cast(SCORES)
    (folder / "scores").mkdir(parents=True)
    for part in range(-(-n // CHUNK)):
        name = f"part-00000-{part:07d}.parquet"
        pq.write_table(table.slice(part * CHUNK, CHUNK), folder / "scores" / name)
    rejected = [{"id": f"R{i}", "smiles": "C1CC", "stage": "parse",
                 "reason": f"SMILES does not parse: {i % 7}"} for i in range(n // 100)]  # fmt: skip
    (folder / "rejected").mkdir()
    pq.write_table(pa.Table.from_pylist(rejected), folder / "rejected/part-00000-0000000.parquet")
    checkpoint = folder / "training/checkpoint"
    checkpoint.mkdir(parents=True)
    some = rng.choice(smiles, min(2 * TRAINING, n), replace=False).tolist()
    roles = ["id_train"] * (len(some) // 2) + ["ood_train"] * (len(some) - len(some) // 2)
    pq.write_table(
        pa.table({"smiles": some, "role": roles}), checkpoint / "training_molecules.parquet"
    )


def measure(folder: str) -> dict[str, float]:
    """One page, imports included."""
    started = time.perf_counter()
    from pipeline.report.run import run_report
    from pipeline.report.settings import ReportSettings

    made = run_report(ReportSettings(folder=folder))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "megabytes": made["bytes"] / 1e6,
        "drawings": made["figures"],
        "memory_mib": used.ru_maxrss / 1024,
    }


def main() -> None:
    """Measure each size and write the table."""
    smiles, rows = moses(max(SIZES)), []
    with tempfile.TemporaryDirectory() as home:
        for size in SIZES:
            folder = Path(home) / str(size)
            write_scores(folder, smiles[:size])
            code = f"from bench.page import *; print(json.dumps(measure({str(folder)!r})))"
            runs = [
                json.loads(subprocess.run([sys.executable, "-c", code], check=True,
                                          capture_output=True, text=True).stdout)
                for _ in range(RUNS)
            ]  # fmt: skip
            best = {name: min(run[name] for run in runs) for name in runs[0]}
            rows.append(
                [f"{size:,}", f"{best['seconds']:.1f}", f"{best['cpu_seconds']:.1f}",
                 f"{best['megabytes']:.2f}", f"{best['drawings']:.0f}", f"{best['memory_mib']:.0f}"]
            )  # fmt: skip
            print(rows[-1], flush=True)
    header = ["rows", "s", "CPU s", "page, MB", "drawings", "peak memory, MiB"]
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    text = [
        "# Pages of scored libraries", "",
        f"`python -m bench.page` on {len(os.sched_getaffinity(0))} cores of {cpu_name()}, shared "
        f"with other work (load {load}): the page of a folder as jobs.score leaves it, with made-up"
        f" scores of MOSES' molecules, {TRAINING:,} training molecules of either kind and 1 % "
        f"rejected rows. Smallest of {RUNS} runs, imports included. Numbers of all rows are in the "
        "charts; 1,500 molecules of each kind are on the map and 5,000 are asked for their "
        "scaffolds.", "",
        *markdown(header, rows),
    ]  # fmt: skip
    Path(__file__).with_suffix(".md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
