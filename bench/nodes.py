"""Throughput of the conformer stage over one and two simulated nodes of one core each.

`python -m bench.nodes` makes conformers of MOSES molecules on clusters of this machine
(ray.cluster_utils: a head without cores, and nodes), in turn, and writes nodes.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import ray
from jsonargparse import auto_cli
from ray.cluster_utils import Cluster

from bench.report import cpu_name, markdown, moses
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding.plan import plan_encoding
from pipeline.encoding.stored_conformers import embed
from pipeline.molecules.identity import molecule_key

NODES = (1, 2)
WARM_UP = 100  # molecules by which each node's workers start


def main(molecules: int = 4000, repeats: int = 3, nodes: int = 0) -> None:
    """Measure in turn, and write nodes.md.

    Args:
        molecules: conformers to make in each run.
        repeats: runs for each number of nodes.
        nodes: only this number, once, in this process; prints the rate.
    """
    if nodes:
        print(json.dumps(rate(nodes, molecules)))
        return
    rates = {count: [] for count in NODES}
    for _ in range(repeats):
        for count, found in rates.items():
            words = ["--nodes", str(count), "--molecules", str(molecules)]
            done = subprocess.run(
                [sys.executable, "-m", "bench.nodes", *words],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            found.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(count, found[-1], flush=True)
    one, two = (statistics.median(found) for found in rates.values())
    rows = [
        [str(count), f"{statistics.median(found):.1f}", f"{min(found):.1f}–{max(found):.1f}"]
        for count, found in rates.items()
    ]
    lines = [
        "# The conformer stage on one and two nodes",
        "",
        f"`python -m bench.nodes` on {os.cpu_count()} cores of {cpu_name()}: {molecules:,} MOSES "
        f"molecules, simulated nodes of one core each, workers started before, {repeats} runs for "
        "each in turn. The head, the driver and each node's daemons share the same cores.",
        "",
        *markdown(("nodes", "molecules/s, median", "least and most"), rows),
        "",
        f"Two nodes make {two / one:.2f} times what one makes, {two / one / 2:.2f} of linear.",
        "",
    ]
    (Path(__file__).parent / "nodes.md").write_text("\n".join(lines))
    print("\n".join(lines))


def rate(nodes: int, molecules: int) -> float:
    """Conformers a second, from SMILES to rows in the store."""
    smiles = moses(molecules + WARM_UP)
    table = pa.table({"key": [molecule_key(s) for s in smiles], "smiles": smiles})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(nodes):
        cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_encoding(EncoderSettings(cache_root=folder, device="cpu", weights="mini"))
        embed(table.slice(0, WARM_UP), plan)
        made = embed(table.slice(WARM_UP), plan)
    ray.shutdown()
    cluster.shutdown()
    return made.made / made.seconds


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
