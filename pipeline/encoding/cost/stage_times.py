"""What the flow's stages did with their time, and so what bounds a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.in_store.tables import NODES, SHARES

MOSTLY_IDLE, HARDLY_IDLE = 0.5, 0.2
MOSTLY_WORK = 0.5


@dataclass(frozen=True)
class Stages:
    """Times of a run's stages, summed over their processes.

    Attributes
    ----------
    seconds : of the run, from its first molecule to its last.
    cores, encoders : CPU cores of the cluster, and encoder actors; none if the driver encoded.
    on_gpu : whether encoders have GPUs, and conformers and graphs the cores to themselves.
    conformer_seconds : core seconds that conformers took.
    busy_seconds, waiting_seconds : seconds that encoders worked, and waited for molecules.
    tokens, padding : computed by encoders, and how many of them were padding.
    graph_seconds : core seconds that tasks took for what encoders read, if tasks make that.
    nodes : molecules that each node made conformers of, and encoded.
    """

    seconds: float
    cores: int
    encoders: int
    on_gpu: bool
    conformer_seconds: float = 0.0
    busy_seconds: float = 0.0
    waiting_seconds: float = 0.0
    tokens: float = 0.0
    padding: float = 0.0
    graph_seconds: float = 0.0
    nodes: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def padding_share(self) -> float:
        """Share of padding in the tokens computed."""
        return self.padding / max(1.0, self.tokens)

    @property
    def made_for_encoders(self) -> str:
        """What tasks on CPU cores made, and the share of all cores' time that it took."""
        seconds = self.conformer_seconds + self.graph_seconds
        kinds = {"graphs": self.graph_seconds, "conformers": self.conformer_seconds}
        made = " and ".join(kind for kind, took in kinds.items() if took) or "conformers"
        return f"{made}: {seconds / max(1e-9, self.cores * self.seconds):.0%} of the cores' time"

    @property
    def idle_share(self) -> float:
        """Share of the encoders' time in which they waited."""
        return self.waiting_seconds / max(1e-9, self.waiting_seconds + self.busy_seconds)

    @property
    def hint(self) -> str:
        """What bounds the run, and what would make it faster."""
        if self.on_gpu:
            return (
                f"{self.made_for_encoders}; encoders idle {self.idle_share:.0%}: {self._advice()}"
            )
        work = self.conformer_seconds + self.busy_seconds
        if work < MOSTLY_WORK * self.cores * self.seconds:
            if self.encoders == 0:
                return "done in this process: a short run"
            return "starting workers and waiting for them took most of the time: a short run"
        if self.conformer_seconds == 0:
            return "encoding took the cores' work: add a GPU, or CPU cores"
        share = self.conformer_seconds / max(1e-9, work)
        return f"conformers took {share:.0%} of the cores' work, encoding {1 - share:.0%}: " + (
            "add CPU cores" if share > MOSTLY_WORK else "add a GPU, or CPU cores"
        )

    def _advice(self) -> str:
        if self.idle_share > MOSTLY_IDLE:
            return "add CPU workers"
        if self.idle_share < HARDLY_IDLE:
            return "add GPUs"
        return "balanced"

    def summary(self) -> dict[str, Any]:
        """For run_summary.json."""
        return {**asdict(self), "idle_share": self.idle_share, "bound_by": self.hint}


def shares_of(rows: pa.Table) -> dict[str, float]:
    """Sums of the columns SHARES of outcomes."""
    return {name: pc.sum(rows[name]).as_py() or 0.0 for name in SHARES}


def nodes_of(rows: pa.Table) -> dict[str, dict[str, int]]:
    """How many rows of outcomes each node worked on, by stage."""
    return {name: dict(Counter(rows[name].drop_null().to_pylist())) for name in NODES}
