"""How fast files are read, and what memory that takes, at 90,000 and 1,000,000 rows.

`python -m bench.read` writes read.md: each format by MolSieve's reader, and tables also by pandas
and pyarrow, which read the same rows. Each measurement is a process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.report import cpu_name, markdown

SIZES = (90_000, 1_000_000)
FORMATS = ("csv", "tsv", "smi", "jsonl", "parquet", "sdf")
LARGEST_SDF = 90_000  # a million records are 1 GB of text
PEERS = {"csv": ("pandas", "pyarrow"), "tsv": ("pandas",), "parquet": ("pandas",)}


def smiles(row: int) -> str:
    """A molecule of the size of a drug, in nine lengths."""
    return f"CC(C)Nc1ncccc1C(=O)NCc1ccc(F)cc1{'C' * (row % 9)}"


def write(path: Path, rows: int) -> None:
    """A library: SMILES, an id, a number, and in tables a cell in quotation marks."""
    kind = path.suffix[1:]
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(
            {
                "smiles": [smiles(i) for i in range(rows)],
                "name": [f"m{i}" for i in range(rows)],
                "y": [i % 7 for i in range(rows)],
            }
        )
        pq.write_table(table, path, row_group_size=100_000)
        return
    with path.open("w") as file:
        if kind == "sdf":
            from rdkit import Chem

            blocks = [Chem.MolToMolBlock(Chem.MolFromSmiles(smiles(i))) for i in range(9)]
            for i in range(rows):
                block = blocks[i % 9].split("\n", 1)[1]
                file.write(f"m{i}\n{block}>  <y>\n{i % 7}\n\n$$$$\n")
            return
        gap = {"csv": ",", "tsv": "\t"}.get(kind)
        if gap:
            file.write(gap.join(("smiles", "name", "y", "comment")) + "\n")
        for i in range(rows):
            if gap:
                file.write(gap.join((smiles(i), f"m{i}", str(i % 7), '"a, b"')) + "\n")
            elif kind == "smi":
                file.write(f"{smiles(i)} m{i}\n")
            else:
                file.write(json.dumps({"smiles": smiles(i), "name": f"m{i}", "y": i % 7}) + "\n")


def read_by_molsieve(path: str) -> int:
    """Rows that MolSieve's reader gives, a thousand at a time as in jobs.score."""
    from pipeline.molecules.folders import data_files
    from pipeline.molecules.formats import stream_rows
    from pipeline.molecules.settings import SourceSettings

    named = {} if path.endswith((".smi", ".sdf")) else {"id_column": "name"}
    label = {} if path.endswith(".smi") else {"label_column": "y"}
    settings = SourceSettings(data_file=path, **named, **label)
    return sum(piece.num_rows for piece in stream_rows(data_files(path)[0], settings, 1000))


def read_by_pandas(path: str) -> int:
    """Rows that pandas gives, piece by piece where it can."""
    import pandas as pd

    columns = ["smiles", "name", "y"]
    if path.endswith(".parquet"):
        return len(pd.read_parquet(path, columns=columns))
    gap = "\t" if path.endswith(".tsv") else ","
    pieces = pd.read_csv(path, sep=gap, usecols=columns, chunksize=16_384, dtype=str)
    return sum(map(len, pieces))


def read_by_pyarrow(path: str) -> int:
    """Rows that pyarrow gives on one thread, with line ends allowed in cells."""
    import pyarrow.csv as pc

    reader = pc.open_csv(
        path,
        read_options=pc.ReadOptions(use_threads=False, block_size=1 << 24),
        parse_options=pc.ParseOptions(newlines_in_values=True),
        convert_options=pc.ConvertOptions(include_columns=["smiles", "name", "y"]),
    )
    return sum(batch.num_rows for batch in reader)


READERS: dict[str, Callable[[str], int]] = {
    "MolSieve": read_by_molsieve, "pandas": read_by_pandas, "pyarrow": read_by_pyarrow,
}  # fmt: skip


def measured(reader: str, path: Path) -> dict[str, float]:
    """Rows, seconds and MiB of a reader in a process of its own; see `measure`."""
    command = [sys.executable, "-m", "bench.read", reader, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def measure(reader: str, path: str) -> None:
    """Print rows, seconds, and the peak memory in MiB above that of reading a small file."""
    small = Path(path).with_name(f"small{Path(path).suffix}")
    READERS[reader](str(small))  # imports are not what is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    rows = READERS[reader](path)
    seconds = time.perf_counter() - started
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"rows": rows, "seconds": seconds, "mib": peak}))


def main() -> None:
    """Measure every format, size and reader, and write read.md."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in FORMATS:
            write(Path(folder) / f"small.{kind}", 100)
            for size in SIZES:
                if kind == "sdf" and size > LARGEST_SDF:
                    continue
                path = Path(folder) / f"{size}.{kind}"
                write(path, size)
                for reader in ("MolSieve", *PEERS.get(kind, ())):
                    found = measured(reader, path)
                    assert found["rows"] == size, (reader, kind, found)
                    rate = size / found["seconds"]
                    lines.append(
                        (f".{kind}", f"{size:,}", reader, f"{rate:,.0f}", f"{found['mib']:.0f}")
                    )
                path.unlink()
    text = [
        "# Reading files",
        "",
        f"`python -m bench.read` on one core of {cpu_name()}: rows of a library of drug-sized "
        "molecules, with names, a number and (in CSV and TSV) a cell in quotation marks, read "
        "piece by piece; peak memory is what it grew by. pandas and pyarrow read the same columns "
        "but neither names rows nor keeps those that are malformed.",
        "",
        *markdown(("format", "rows", "reader", "rows/s", "peak memory, MiB"), lines),
        "",
    ]
    (Path(__file__).parent / "read.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) > 1 else main()
