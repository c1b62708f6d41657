"""Whether all cores work to the end of an encoding, with and without the longest work first.

`python -m bench.longest` encodes the shipped sample with MolSieve-Mini from an empty store: as
jobs.encode does, the largest molecules first and in tasks of ever less expected work; and in tasks
of equally many molecules, in the order given. Nothing else should run on the machine, whose cores
are watched; time that a virtual machine's host takes away counts as busy.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from jsonargparse import auto_cli

from bench import SAMPLES
from bench.report import cpu_name, markdown

SAMPLE_SECONDS, SMOOTHED = 0.25, 4  # samples that one moment is the mean of
ALL_BUSY = 0.9 * psutil.cpu_count()  # cores; Ray's own pauses take the rest
EQUAL_ROWS = 64  # molecules a task, of the other side
EQUAL_COUNTS = f"""
from pipeline.encoding import graph

def equal_counts(molecules, tables):
    starts = range(0, max(1, len(molecules)), {EQUAL_ROWS})
    return [molecules.slice(at, {EQUAL_ROWS}) for at in starts]

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
    f"{EQUAL_ROWS} molecules a task, as they come": EQUAL_COUNTS + RUN,
    "the largest 5 % first, then tasks of ever less expected work": RUN,
}


class Watched(NamedTuple):
    """Of one run, in seconds since its start.

    Attributes
    ----------
    total : when it ended.
    last : when the last features were in the store.
    idle : of all cores together until then, from the start.
    waiting : from the last moment at which all cores worked until then.
    """

    total: float
    last: float
    idle: float
    waiting: float


def main(rounds: int = 2) -> None:
    """Both sides in turn.

    Args:
        rounds: runs of each side.
    """
    found: dict[str, list[Watched]] = {name: [] for name in SIDES}
    for _ in range(rounds):
        for name, code in SIDES.items():
            found[name].append(watched(code))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    rows = [
        [
            name, f"{one.total:.1f}", f"{one.idle:.1f}", f"{one.waiting:.1f}",
            f"{one.waiting / one.total:.1%}",
        ]
        for name, each in found.items()
        for one in each
    ]  # fmt: skip
    lines = [
        "# All cores to the end of an encoding",
        "",
        f"`python -m bench.longest --rounds {rounds}` on {psutil.cpu_count()} cores of "
        f"{cpu_name()}: jobs.encode of {SAMPLES['scaffold'].name} (2,400 molecules of the HIV "
        "screen, some of them large) with MolSieve-Mini, from an empty store; a row each run. "
        "*Idle*: core seconds of all cores from the start, Ray's start included, to the last "
        f"features. *Not all busy*: from the last second in which {ALL_BUSY:g} cores worked to the "
        "last features.",
        "",
        *markdown(
            ("tasks", "seconds in all", "idle core seconds", "not all busy at the end, s",
             "of the run"),
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
    if not times:
        raise SystemExit("no features came into the store")
    until = [(at, sum(cores)) for at, cores in samples if at <= times[-1]]
    lengths = np.diff([0.0, *(at for at, _ in until)])
    idle = float(sum((psutil.cpu_count() - busy) * s for (_, busy), s in zip(until, lengths)))
    smoothed = np.convolve([busy for _, busy in until], np.ones(SMOOTHED) / SMOOTHED, "valid")
    all_busy = np.flatnonzero(smoothed >= ALL_BUSY)
    since = until[all_busy[-1] + SMOOTHED - 1][0] if len(all_busy) else 0.0
    return Watched(total, times[-1], idle, times[-1] - since)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
