"""Whether all cores work to the end of an encoding, with and without the longest work first.

`python -m bench.longest` encodes the shipped sample with MolSieve-Mini from an empty store, in
tasks of equal expected work, the longest first, as jobs.encode does; and in tasks of equally many
molecules in the order given. Nothing else should run: the machine's cores are watched.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from jsonargparse import auto_cli

from bench import SAMPLES
from bench.report import cpu_name, markdown

SAMPLE_SECONDS = 0.25
FEW = psutil.cpu_count() - 0.5  # if fewer cores work, one of them waits
TASK_ROWS = 64
EQUAL_COUNTS = f"""
from pipeline.encoding import graph

def equal_counts(molecules, tables):
    starts = range(0, max(1, len(molecules)), {TASK_ROWS})
    return [molecules.slice(at, {TASK_ROWS}) for at in starts]

graph.longest_first = equal_counts
"""
RUN = """
import sys
from jobs.cli import main
from jobs.encode import encode
from pipeline.encoding.settings import EncodeSettings
sys.exit(main(EncodeSettings, encode, "encode"))
"""
SIDES = {
    f"{TASK_ROWS} molecules a task, as they come": EQUAL_COUNTS + RUN,
    "equal expected work a task, the longest first": RUN,
}


class Watched(NamedTuple):
    """Of one run, in seconds since its start.

    Attributes
    ----------
    total : when it ended.
    first, last : when the first and the last features were in the store.
    idle : of all cores together between the first and the last features.
    alone : how long at the end, on the mean, fewer than `FEW` cores worked.
    """

    total: float
    first: float
    last: float
    idle: float
    alone: float


def main(rounds: int = 2) -> None:
    """Both sides in turn; the quicker run of each counts.

    Args:
        rounds: runs of each side.
    """
    found: dict[str, list[Watched]] = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name, code in SIDES.items():
            found[name].append(watched(code))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    best = {name: min(each, key=lambda one: one.total) for name, each in found.items()}
    rows = [
        [
            name, f"{one.total:.1f}", f"{one.last - one.first:.1f}", f"{one.idle:.1f}",
            f"{one.alone:.1f}", f"{one.alone / one.total:.1%}",
            ", ".join(f"{each.total:.1f}" for each in found[name]),
        ]
        for name, one in best.items()
    ]  # fmt: skip
    lines = [
        "# All cores to the end of an encoding",
        "",
        f"`python -m bench.longest --rounds {rounds}` on {psutil.cpu_count()} cores of "
        f"{cpu_name()}: jobs.encode of {SAMPLES['scaffold'].name} (2,400 molecules of the HIV "
        "screen, some of them large) with MolSieve-Mini, from an empty store; of each side the "
        f"quicker run. Cores are watched every {SAMPLE_SECONDS} s. *Alone*: how long before the "
        f"last features fewer than {FEW} cores worked on the mean. Seconds in all moved by a "
        "quarter from run to run of the same side here; idle core seconds tell the sides apart.",
        "",
        *markdown(
            ("tasks", "seconds in all", "first to last features, s", "idle core seconds of it",
             "alone, s", "of the run", "all runs, s"),
            rows,
        ),
        "",
    ]  # fmt: skip
    (Path(__file__).parent / "longest.md").write_text("\n".join(lines))
    print("\n".join(lines))


def watched(code: str) -> Watched:
    """One run from an empty store, with the machine's cores watched."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [
            "--data_file", str(SAMPLES["scaffold"]), "--foundation_model", "unimol", "--weights",
            "mini", "--output_dir", f"{folder}/out", "--cache_root", f"{folder}/store",
            "--device", "cpu",
        ]  # fmt: skip
        began, samples = time.time(), []
        with subprocess.Popen([sys.executable, "-c", code, *flags]) as process:
            psutil.cpu_percent(percpu=True)
            while process.poll() is None:
                time.sleep(SAMPLE_SECONDS)
                cores = [each / 100 for each in psutil.cpu_percent(percpu=True)]
                samples.append((time.time() - began, cores))
        if process.returncode:
            raise SystemExit(process.returncode)
        total = time.time() - began
        shards = Path(folder, "store", "features").rglob("*.parquet")
        times = sorted(path.stat().st_mtime - began for path in shards)
    first, last = times[0], times[-1]
    busy = [sum(cores) for at, cores in samples if first <= at <= last]
    idle = sum(psutil.cpu_count() - each for each in busy) * SAMPLE_SECONDS
    mean_to_end = [sum(busy[at:]) / len(busy[at:]) for at in range(len(busy))]
    alone = next((len(busy) - at for at, mean in enumerate(mean_to_end) if mean < FEW), 0)
    return Watched(total, first, last, idle, alone * SAMPLE_SECONDS)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
