"""What each process of a run imports, and how long that takes: `python -m bench.startup`.

Each job runs once with PYTHONPROFILEIMPORTTIME, which Ray's processes inherit; their logs hold the
times. Ray runs by itself here, with all cores and an empty store; the encoder is MolSieve-Mini.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from jsonargparse import auto_cli

from bench.report import cpu_name, markdown
from pipeline.runtime.nodes.machine import usable_cores

SAMPLE = Path(__file__).parent.parent / "data" / "hiv_scaffold_sample.json.gz"
LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)")
NAMED = re.compile(r"^:(?:actor|task)_name:(\S+)", re.M)
KINDS = {  # what a user knows a process by, by words of Ray's name for it
    "EncodeBatch": "encoder",
    "ScoreChunk": "scoring",
    "make_conformers": "conformers",
    "look_up": "conformers and look-ups",
    "ready_chunk": "conformers and look-ups",
    "RayTrainWorker": "training worker",
}


class Imports(NamedTuple):
    """One process: seconds of its imports, modules, and seconds by package."""

    kind: str
    seconds: float
    modules: int
    packages: Counter[str]


def main(molecules: int = 120, runs: str = "") -> None:
    """Run jobs.encode, jobs.train and jobs.score, and write startup.md.

    Args:
        molecules: a split, of the shipped sample.
        runs: folder to work in; a temporary one by default.
    """
    folder = Path(runs or tempfile.mkdtemp(prefix="s"))
    common = ["--cache_root", str(folder / "store"), "--device", "cpu", "--weights", "mini"]
    sample = ["--data_file", str(SAMPLE), "--debug_dataset_size", str(molecules), *common]
    checkpoint = ["--checkpoint", str(folder / "train/checkpoint")]
    jobs = {
        "encode": ["--data_file", str(library(folder, molecules)), *common],
        "train": [*sample, "--epochs", "2"],
        "train, two workers": [*sample, "--epochs", "2", "--num_workers", "2"],
        "score": ["--data_file", str(library(folder, molecules)), *checkpoint, *common],
    }
    rows = []
    for name, flags in jobs.items():
        for found in grouped(profiled(folder, name, flags)):
            rows.append([f"jobs.{name}", *found])
    lines = [
        "# What the processes of a run import",
        "",
        f"`python -m bench.startup` on {cpu_name()}, {usable_cores()} cores; seconds under "
        "Python's own profile of imports, which makes them longer. Ray's daemons are left out.",
        "",
        *markdown(("job", "process", "how many", "seconds each", "modules", "of it"), rows),
        "",
    ]
    (Path(__file__).parent / "startup.md").write_text("\n".join(lines))
    print("\n".join(lines))


def library(folder: Path, molecules: int) -> Path:
    """Some molecules that no training has seen."""
    lines = (Path(__file__).parent.parent / "tests/data/moses.smi").read_text().split()
    path = folder / "library.smi"
    path.write_text("\n".join(lines[:molecules]))
    return path


def profiled(folder: Path, name: str, flags: list[str]) -> list[Imports]:
    """Run a job; its own imports first, then those of Ray's processes."""
    output = folder / name.split(",")[0]
    alone = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with tempfile.TemporaryDirectory(prefix="s") as temporary:  # a short path: sockets lie in it
        done = subprocess.run(
            [sys.executable, "-m", f"jobs.{name.split(',')[0]}", *flags, "--output_dir", output],
            env={**alone, "PYTHONPROFILEIMPORTTIME": "1", "RAY_TMPDIR": temporary},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            told = [line for line in done.stderr.splitlines() if not LINE.match(line)]
            raise SystemExit("\n".join(told))
        logs = sorted(Path(temporary).glob("ray/session_2*/logs/worker-*.err"))
        texts = [path.read_text(errors="replace") for path in logs]
    children, driver = split_children(done.stderr)
    made = [imports("driver", driver), *(imports("child of the driver", c) for c in children)]
    for text in texts:
        children, own = split_children(text)
        names = NAMED.findall(text)
        kind = next((KINDS[word] for word in KINDS if any(word in n for n in names)), None)
        made.append(imports(kind or (names[0] if names else "not used"), own))
        made += [imports("RDKit's process", child) for child in children]
    return made


def split_children(text: str) -> tuple[list[str], str]:
    """Profiles of processes that a process started, which write to its log, and its own."""
    begun = [match.start() for match in re.finditer(r"^import time: self ", text, re.M)]
    parts = [text[a:b] for a, b in zip(begun, [*begun[1:], len(text)])]
    return parts[1:], text[: begun[0]] + parts[0] if begun else text


def imports(kind: str, text: str) -> Imports:
    """The sums of a profile."""
    packages: Counter[str] = Counter()
    modules = 0
    for microseconds, module in LINE.findall(text):
        packages[module.split(".")[0]] += int(microseconds) / 1e6
        modules += 1
    return Imports(kind, packages.total(), modules, packages)


def grouped(processes: list[Imports]) -> list[list[str]]:
    """Rows of the table: processes of a kind together."""
    kinds: dict[str, list[Imports]] = defaultdict(list)
    for process in processes:
        if process.modules > 100:  # others are shells
            kinds[process.kind].append(process)
    rows = []
    for kind, members in kinds.items():
        longest = max(members, key=lambda member: member.seconds)
        largest = ", ".join(f"{name} {s:.1f}" for name, s in longest.packages.most_common(5))
        seconds = sum(member.seconds for member in members) / len(members)
        rows.append([kind, str(len(members)), f"{seconds:.1f}", str(longest.modules), largest])
    return rows


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
