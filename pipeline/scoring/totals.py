"""What the chunks of a scoring run say of themselves, added up in the driver."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.in_store.tables import NODES, PEAKS, SHARES

COUNTS = ("rows", "fragments_removed", "encoded")


class Totals:
    """What this run's chunks say of themselves, added up.

    Attributes
    ----------
    sums : COUNTS and SHARES.
    peaks : PEAKS, the largest of any encoder.
    nodes : for each of NODES, molecules by node.
    by_actors : whether actors scored some.
    """

    def __init__(self):
        self.by_actors = False
        self.sums: Counter[str] = Counter()
        self.peaks: Counter[str] = Counter()
        self.nodes: dict[str, Counter[str]] = {name: Counter() for name in NODES}

    def add(self, counts: pa.Table) -> None:
        """Add the counts of some chunks; see `ScoreChunk`."""
        for name in (*COUNTS, *SHARES):
            self.sums[name] += pc.sum(counts[name]).as_py()
        for name in PEAKS:
            self.peaks[name] = max(self.peaks[name], pc.max(counts[name]).as_py())
        for name, nodes in self.nodes.items():
            for found in counts[name].to_pylist():
                nodes.update(json.loads(found))

    def of_stages(self) -> dict[str, Any]:
        """Attributes of `pipeline.encoding.cost.stage_times.Stages`."""
        nodes = {name: dict(counted) for name, counted in self.nodes.items()}
        return {"nodes": nodes, **{name: self.sums[name] for name in SHARES}}
