"""Structures by ESMFold: actors over the cluster, as a list of steps, and what runs in one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from pipeline.encoders.esm.weights import EsmWeights
from pipeline.encoding.in_store.tables import REJECTIONS
from pipeline.encoding.plan import EncoderPool
from pipeline.folding.esmfold.model import LETTERS, NOT_FINITE, EsmFold, Folded, folding_precision
from pipeline.folding.esmfold.weights import resolve_weights
from pipeline.folding.expected_work import expected_work
from pipeline.folding.features import backbone_features
from pipeline.folding.settings import FoldSettings
from pipeline.folding.tables import NAME, OUTCOMES, identity, kept_rows, outcome, structure_row
from pipeline.runtime import dashboard_metrics, telemetry
from pipeline.runtime.errors import RowRejected
from pipeline.runtime.nodes.cluster import device_of, resources
from pipeline.store.bounded import BoundedTable
from pipeline.store.keyed_table import KeyedTable

UNKNOWN = "letters that ESMFold does not know, folded as X"
KEEP_SECONDS = 20.0  # of work that a killed actor may lose
ACTOR_CORES = 4  # of an actor without a GPU
# Tasks of an actor, so that none waits long for another in the end; and sequences of one at most.
TASKS, TASK_ROWS = 16, 256


@dataclass(frozen=True)
class ByEsmFold:
    """Structures that ESMFold makes.

    Attributes
    ----------
    settings : the precision decided.
    device : "cpu" or "cuda".
    table, rejections : of the store.
    """

    settings: FoldSettings
    device: str
    weights: EsmWeights
    table: BoundedTable
    rejections: KeyedTable

    @classmethod
    def of(cls, settings: FoldSettings) -> ByEsmFold:
        """What the settings mean on this cluster, which is joined.

        Raises
        ------
        InputError
            If the weights cannot be had, or no node has the device.
        """
        device = device_of(settings.device)
        precision = folding_precision(device, settings.precision)
        weights = resolve_weights(settings.structure_weights)
        root = settings.cache_root
        decides = identity(
            "esmfold",
            weights_sha256=weights.sha256,
            config_sha256=weights.config_sha256,
            precision=precision,
            recycles=settings.recycles,
            transformers=version("transformers"),
        )
        return cls(
            settings=replace(settings, precision=precision),
            device=device,
            weights=weights,
            table=BoundedTable(root, NAME, decides, settings.store_gb, dense=True),
            rejections=KeyedTable(root, "rejections", decides),
        )

    @property
    def label(self) -> str:
        """What reports call it."""
        return f"ESMFold {self.weights.label}, {self.settings.precision}"

    @property
    def summary(self) -> dict[str, Any]:
        """Nothing but what every run tells."""
        return {}

    def sources(self, wanted: pa.Table, ids: dict[str, list[str]]) -> list[str | RowRejected]:
        """Where the structure of each wanted sequence is to come from."""
        return [self.label] * wanted.num_rows

    def outcomes(self, todo: pa.Table, run: str) -> Iterator[pa.Table]:
        """Make what is to do (`key`, `smiles`, `source`); OUTCOMES, as they come."""
        flow = folding_graph(todo, self, folding_pool(self), run)
        yield from flow.iter_batches(batch_size=None, batch_format="pyarrow")


def folding_graph(todo: pa.Table, plan: ByEsmFold, pool: EncoderPool, run: str) -> ray.data.Dataset:
    """The flow from sequences to structures in the store; its rows say what became of each key."""
    tasks = longest_first(todo, TASKS * pool.actors)
    return ray.data.from_arrow(tasks).map_batches(
        FoldBatch,
        fn_constructor_kwargs={"plan": plan, "run": run, "pool": pool},
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        compute=pool.strategy(len(tasks)),
    )


def folding_pool(plan: ByEsmFold) -> EncoderPool:
    """One actor a GPU, or a part of one; or one for a few CPU cores, as memory allows."""
    has, workers = resources(), plan.settings.fold_workers
    if plan.device == "cuda":
        actors = workers or int(has["GPU"])
        gpus = min(1.0, has["GPU"] / actors)
        now = int(ray.cluster_resources().get("GPU", 0) / gpus)
        return EncoderPool(actors, "cuda", 0, gpus, TASK_ROWS, now=now)
    cpus = _actor_cores()
    actors, now = (
        workers or max(1, int(min(each.get("CPU", 1) // cpus, _room(each, plan.weights))))
        for each in (has, ray.cluster_resources())
    )
    cpus = max(1, min(cpus, int(has.get("CPU", 1)) // actors))
    return EncoderPool(actors, "cpu", cpus, 0, TASK_ROWS, now=now)


def _actor_cores() -> int:
    """CPU cores of an actor, which has no more than a node has."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    largest = int(max(nodes, default=0))  # 0 where nodes are yet to be started
    return min(ACTOR_CORES, largest or ACTOR_CORES)


def _room(has: dict[str, float], weights: EsmWeights) -> float:
    """Models that some nodes' memory holds: what is loaded, and its file."""
    return has.get("memory", 0) / (2 * _bytes(weights))


def _bytes(weights: EsmWeights) -> int:
    return sum(path.stat().st_size for path in weights.files)


def longest_first(todo: pa.Table, tasks: int) -> list[pa.Table]:
    """Sequences in tasks of like lengths and like work, the longest first."""
    lengths = np.array([len(sequence) for sequence in todo["smiles"].to_pylist()])
    order = np.argsort(-lengths, kind="stable")
    table, work = todo.take(order), np.cumsum(expected_work(lengths[order]))
    cuts, start = [], 0
    while start < len(lengths):
        done = work[start - 1] if start else 0.0
        end = int(np.searchsorted(work, done + work[-1] / tasks, side="right"))
        end = min(max(end, start + 1), start + TASK_ROWS)
        cuts.append(table.slice(start, end - start))
        start = end
    return cuts


class FoldBatch:
    """One ESMFold on one device: sequences in, structures into the store, outcomes out."""

    def __init__(self, plan: ByEsmFold, run: str, pool: EncoderPool):
        self.plan, self.run, self.pool = plan, run, pool
        self._model: EsmFold | None = None

    @property
    def model(self) -> EsmFold:
        """The model; loaded at the first call, since Ray hides what a constructor raises."""
        if self._model is None:
            import torch

            pool, settings = self.pool, self.plan.settings
            if pool.device == "cpu":
                torch.set_num_threads(int(pool.cpus))
            self._model = EsmFold(
                self.plan.weights, pool.device, settings.precision, settings.recycles,
                memory_share=pool.gpus or 1.0,
            )  # fmt: skip
            telemetry.reset_peak_memory()
        return self._model

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Fold a task's sequences; what is made is kept every few seconds."""
        rows, made, outcomes = batch.to_pylist(), [], []
        kept = time.monotonic()
        for numbers, structures in self.model.fold([row["smiles"] for row in rows]):
            for number, structure in zip(numbers, structures):
                outcomes.append(self._outcome(rows[number], structure))
                if isinstance(structure, Folded):
                    made.append(_structure_row(rows[number], structure))
            if time.monotonic() - kept > KEEP_SECONDS:
                self._keep(made)
                made, kept = [], time.monotonic()
        self._keep(made)
        result = pa.Table.from_pylist(outcomes, schema=OUTCOMES)
        rejected = result.filter(result["reason"].is_valid())
        # Of the sequence itself: another machine may have more memory.
        of_itself = rejected.filter(pc.equal(rejected["reason"], NOT_FINITE))
        self.plan.rejections.write(of_itself.select(REJECTIONS.names), self.run)
        dashboard_metrics.count("rejected", rejected.num_rows, stage="structure")
        return result

    def _keep(self, made: list[dict[str, Any]]) -> None:
        self.plan.table.write(kept_rows(made), self.run)

    @staticmethod
    def _outcome(row: dict[str, Any], structure: Folded | RowRejected) -> dict[str, Any]:
        peaks = {
            "gpu_gb": telemetry.peak_gpu_memory_gb(),
            "resident_gb": telemetry.peak_resident_memory_gb(),
        }
        return outcome(row, None if isinstance(structure, Folded) else str(structure), **peaks)


def _structure_row(row: dict[str, Any], structure: Folded) -> dict[str, Any]:
    notes = [UNKNOWN] if set(row["smiles"]) - set(LETTERS) else []
    features = backbone_features(structure.backbone, structure.plddt)
    return structure_row(row["key"], features, row["source"], notes)
