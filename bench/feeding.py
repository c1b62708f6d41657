"""How many molecules a second one core of a GPU's encoder is done with, its forward pass left out.

An actor on a GPU has one core, which makes graphs itself, or gets those that tasks made.
`python -m bench.feeding` measures both without a GPU, and writes feeding.md.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from bench.report import cpu_name, markdown
from pipeline.encoders.minimol.batching import CPU_ATOMS, join, plan_batches
from pipeline.encoders.minimol.featurizer import MolGraph
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.plan import EncoderPool, EncodingPlan
from pipeline.encoding.steps import EncodeBatch, make_graphs
from pipeline.molecules.identity import canonicalize, molecule_key

SAMPLE = Path(__file__).parent.parent / "data/hiv_scaffold_sample.json.gz"
MOLECULES, ROUNDS = 2000, 3


def main() -> None:
    """Measure and write feeding.md."""
    torch.set_num_threads(1)
    rows = molecules()
    spent = dict.fromkeys(("the task", "by itself", "by tasks"), float("inf"))
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as root:
            plan, actor = started(root)
            began = time.process_time()
            made = make_graphs(rows, plan, "run")
            spent["the task"] = min(spent["the task"], time.process_time() - began)
            for name, table in (("by itself", rows), ("by tasks", made)):
                began = time.process_time()
                actor.encode(table)
                spent[name] = min(spent[name], time.process_time() - began)
    text = report(spent, made)
    (Path(__file__).parent / "feeding.md").write_text(text)
    print(text)


def molecules() -> pa.Table:
    """Keys and canonical SMILES of the shipped sample's first molecules."""
    with gzip.open(SAMPLE, "rt") as file:
        split = json.load(file)["split"]
    smiles = [canonicalize(row["smiles"]) for part in split.values() for row in part][:MOLECULES]
    return pa.table({"key": [molecule_key(one) for one in smiles], "smiles": smiles})


def started(root: str) -> tuple[EncodingPlan, EncodeBatch]:
    """A store in a folder, and an encoder whose batches are joined, but not multiplied."""
    settings = EncoderSettings(foundation_model="minimol", cache_root=root, precision="fp32")
    tables = Tables.of(settings)
    for table in tables:
        table.create()
    plan = EncodingPlan(settings, "cpu", None, tables)
    actor = EncodeBatch(plan, "run", EncoderPool(1, "cpu", 0, 0, MOLECULES))

    features = np.random.RandomState(0).normal(size=(MOLECULES, actor.encoder.dim))
    features = features.astype(np.float32)

    def joined(graphs: Sequence[MolGraph]) -> np.ndarray:
        for batch in plan_batches([len(graph.atoms) for graph in graphs], actor.encoder.budget):
            join(graphs[batch.start : batch.stop])
        return features[: len(graphs)]

    actor.encoder.encode_prepared = joined
    return plan, actor


def report(spent: dict[str, float], made: pa.Table) -> str:
    """feeding.md."""
    count = made.num_rows
    each = sum(len(graph.as_py()) for graph in made["graph"]) / count
    lines = {
        "makes the graphs, and all below": "by itself",
        "gets graphs that tasks made: reads and joins them, keeps the features": "by tasks",
    }
    return "\n".join([
        "# What one core of a GPU's encoder is done with",
        "",
        f"`python -m bench.feeding` on one of {os.cpu_count()} cores of {cpu_name()}, torch "
        f"{torch.__version__}: {count:,} molecules of the shipped sample (HIV), MiniMol, CPU "
        f"time, the best of {ROUNDS} rounds. An actor on a GPU works on one thread, and reserves "
        "no core. Its forward pass is left out (features are random numbers), and so is what "
        f"copying to a GPU takes; no GPU was there. Batches are a CPU's, of {CPU_ATOMS:,} atoms.",
        "",
        *markdown(
            ("the actor", "ms a molecule", "molecules a second", "times"),
            [
                [line, f"{1e3 * spent[name] / count:.2f}", f"{count / spent[name]:,.0f}",
                 f"{spent['by itself'] / spent[name]:.1f}"]
                for line, name in lines.items()
            ],
        ),
        "",
        f"A task makes {count / spent['the task']:,.0f} graphs a second on a core, of "
        f"{each / 1e3:.1f} kB each, so that one such actor takes what "
        f"{spent['the task'] / spent['by tasks']:.0f} cores make. With the way through bytes a "
        f"molecule takes {(spent['the task'] + spent['by tasks']) / spent['by itself']:.2f} times "
        "the CPU time that it takes in the actor, so tasks are for several cores.",
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
