"""The molecules that MolSieve-Mini was pretrained on: MOSES, MUV and HIV, as one Parquet table.

All molecules of the shipped sample are left out, by canonical SMILES, however it is split.

Run: python -m bench.mini_corpus HIV.csv.gz MUV.csv.gz MOSES_train.csv.gz corpus.parquet
(the last input is moses/dataset/data/train.csv.gz of the wheel molsets)
"""

from __future__ import annotations

import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.molecules.identity import canonicalize
from pipeline.runtime.errors import RowRejected

SAMPLE = Path(__file__).parent.parent / "data" / "hiv_sample.csv.gz"
SEED = 0
# Molecules of each source, in the order of the arguments.
SIZES = {"hiv": 25_000, "muv": 40_000, "moses": 150_000}
COLUMNS = ("smiles", "SMILES")


def canonical_or_none(smiles: str) -> str | None:
    """The canonical SMILES, None for what is no molecule."""
    try:
        return canonicalize(smiles)
    except RowRejected:
        return None


def main() -> None:
    """Sample each source, and write what is left of them."""
    *sources, target = sys.argv[1:]
    rng, seen = np.random.default_rng(SEED), set()
    left_out = {canonicalize(smiles) for smiles in pa.csv.read_csv(SAMPLE)["smiles"].to_pylist()}
    rows = {"id": [], "smiles": [], "source": []}
    with Pool() as pool:
        for path, (name, size) in zip(sources, SIZES.items(), strict=True):
            table = pa.csv.read_csv(path)
            column = next(c for c in COLUMNS if c in table.column_names)
            # Some more than wanted, for those left out, repeated or unreadable.
            order = rng.permutation(table.num_rows)[: int(size * 1.2)]
            taken = 0
            texts = table[column].take(order).to_pylist()
            for row, smiles in zip(order, pool.map(canonical_or_none, texts, chunksize=500)):
                if smiles is None or smiles in left_out or smiles in seen or taken == size:
                    continue
                seen.add(smiles)
                taken += 1
                rows["id"].append(f"{name}:{row}")
                rows["smiles"].append(smiles)
                rows["source"].append(name)
            print(f"{name}: {taken:,} molecules", flush=True)
    pq.write_table(pa.table(rows), target)


if __name__ == "__main__":
    main()
