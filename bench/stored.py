"""How fast jobs.score is where the store has every feature, beside what RDKit's parsing allows.

`python -m bench.stored --library MUV.csv.gz --checkpoint outputs/minimol/checkpoint` scores the
first molecules of a CSV file twice, the second time with all features in the store, and writes
stored.md.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from jsonargparse import auto_cli
from rdkit import Chem, RDLogger

from bench.report import cpu_name, markdown
from bench.score import command, first_molecules, molecules_of, watched

PARSED, ROUNDS = 5000, 3  # molecules that RDKit's rate is measured by
CHUNK = 1000  # rows, of jobs.score by default


def main(
    library: str, checkpoint: str, molecules: tuple[int, ...] = (15_000, 30_000), runs: str = ""
) -> None:
    """Score stored molecules.

    Args:
        library: CSV file with a column `smiles`, with .gz or without.
        checkpoint: of jobs.train.
        molecules: how many of the library's, one run each.
        runs: folder to work in, and to find stores of before in; a temporary one by default.
    """
    folder = Path(runs or tempfile.mkdtemp())
    if min(molecules) < 2 * CHUNK:
        raise SystemExit(f"--molecules: at least {2 * CHUNK:,}, two chunks")
    limit = (os.cpu_count() or 1) * max(_parsed_a_second(library) for _ in range(ROUNDS))
    rows = [_row(folder / str(count), library, checkpoint, count, limit) for count in molecules]
    lines = [
        "# Scoring what is stored",
        "",
        f"`python -m bench.stored --library {Path(library).name} --checkpoint …` on "
        f"{os.cpu_count()} cores of {cpu_name()}. All features are in the store, and the rows are "
        "parsed, fingerprinted, judged and written. In steady state: rows of all chunks but the "
        "first to end, by the time since that. RDKit's limit: MolFromSmiles and MolToSmiles of "
        f"{PARSED:,} of the rows on one core, the best of {ROUNDS} rounds, times the cores: "
        f"{limit:,.0f} a second.",
        "",
        *markdown(
            ("rows", "seconds in all", "before the first chunk's end", "rows a second, steady",
             "share of RDKit's limit"),
            rows,
        ),
        "",
    ]  # fmt: skip
    (Path(__file__).parent / "stored.md").write_text("\n".join(lines))
    print("\n".join(lines))


def _row(folder: Path, library: str, checkpoint: str, count: int, limit: float) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    first_molecules(library, count, folder / "library.csv")
    for _ in range(2):  # the first fills the store
        shutil.rmtree(folder / "out", ignore_errors=True)
        begun, start = time.time(), time.monotonic()
        summary, _ = watched(command(folder, checkpoint), folder / "out")
        seconds = time.monotonic() - start
    if summary["encoded"]:
        raise SystemExit(f"{summary['encoded']} molecules were not in the store")
    parts = sorted((folder / "out/scores").glob("part-*"), key=lambda part: part.stat().st_mtime)
    ends = [part.stat().st_mtime for part in parts]
    steady = sum(pq.read_metadata(part).num_rows for part in parts[1:]) / (ends[-1] - ends[0])
    return [
        f"{count:,}", f"{seconds:.1f}", f"{ends[0] - begun:.1f}", f"{steady:,.0f}",
        f"{steady / limit:.0%}",
    ]  # fmt: skip


def _parsed_a_second(library: str) -> float:
    RDLogger.DisableLog("rdApp.*")
    smiles = molecules_of(library, PARSED)
    start = time.perf_counter()
    for text in smiles:
        molecule = Chem.MolFromSmiles(text)
        if molecule is not None:
            Chem.MolToSmiles(molecule)
    return len(smiles) / (time.perf_counter() - start)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
