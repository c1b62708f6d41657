"""Global batches of ID and OOD features for training, the same for any number of workers.

A global batch has the same molecules in the same order however many workers there are; each
worker takes every `world`-th of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
import torch
from torch import Tensor

from pipeline.store import Index, KeyedTable, feature_matrix

SHUFFLE_BATCHES = 4  # a streamed set is shuffled within a window of this many batches


class GlobalBatch(NamedTuple):
    """One worker's share of a batch, (n, width) each, and the sizes of the whole batch."""

    id_features: Tensor
    ood_features: Tensor
    id_total: int
    ood_total: int


class Batches(Protocol):
    """A training set that can be passed over again and again."""

    width: int

    def epoch(self, epoch: int) -> Iterator[GlobalBatch]:
        """One pass: the larger of the two sets once, the smaller one as often as needed."""
        ...


class ResidentBatches:
    """Features that stay on the device; a batch is an index into them.

    Parameters
    ----------
    id_features, ood_features : (n, width) on the device.
    batch_size : molecules of each kind in a global batch.
    """

    def __init__(
        self, id_features: Tensor, ood_features: Tensor, batch_size: int, seed: int,
        rank: int, world: int,
    ):  # fmt: skip
        self.id_features, self.ood_features = id_features, ood_features
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.width = id_features.shape[1]

    def epoch(self, epoch: int) -> Iterator[GlobalBatch]:
        """See `Batches.epoch`."""
        sizes = len(self.id_features), len(self.ood_features)
        steps = math.ceil(max(sizes) / self.batch_size)
        rng = np.random.default_rng([self.seed, epoch])
        device = self.id_features.device
        id_parts, ood_parts = (
            self._parts(rng, size, steps, largest=size == max(sizes)) for size in sizes
        )
        for id_rows, ood_rows in zip(id_parts, ood_parts):
            mine = slice(self.rank, None, self.world)
            yield GlobalBatch(
                self.id_features[torch.from_numpy(id_rows[mine]).to(device)],
                self.ood_features[torch.from_numpy(ood_rows[mine]).to(device)],
                len(id_rows),
                len(ood_rows),
            )

    def _parts(
        self, rng: np.random.Generator, size: int, steps: int, largest: bool
    ) -> list[np.ndarray]:
        if largest:
            order = rng.permutation(size)
            return [order[s * self.batch_size : (s + 1) * self.batch_size] for s in range(steps)]
        per_step = min(self.batch_size, size)
        rounds = math.ceil(steps * per_step / size)
        order = np.concatenate([rng.permutation(size) for _ in range(rounds)])
        return [order[s * per_step : (s + 1) * per_step] for s in range(steps)]


class StreamedBatches:
    """Features that stream from the store through Ray Data, for sets larger than memory.

    Parameters
    ----------
    id_stream, ood_stream : Ray Data iterators over all rows, with the column `features`.
    id_size, ood_size : their numbers of rows.
    """

    def __init__(
        self, id_stream: ray.data.DataIterator, ood_stream: ray.data.DataIterator, id_size: int,
        ood_size: int, width: int, batch_size: int, seed: int, rank: int, world: int,
        device: torch.device,
    ):  # fmt: skip
        self.streams = (id_stream, id_size), (ood_stream, ood_size)
        self.width, self.batch_size, self.seed = width, batch_size, seed
        self.rank, self.world, self.device = rank, world, device

    def epoch(self, epoch: int) -> Iterator[GlobalBatch]:
        """See `Batches.epoch`; both sets are read anew, in the store's order, shuffled locally."""
        (id_stream, id_size), (ood_stream, ood_size) = self.streams
        steps = math.ceil(max(id_size, ood_size) / self.batch_size)
        id_batches = self._endless(id_stream, epoch)
        ood_batches = self._endless(ood_stream, epoch)
        for _ in range(steps):
            x_id, x_ood = next(id_batches), next(ood_batches)
            mine = slice(self.rank, None, self.world)
            yield GlobalBatch(x_id[mine], x_ood[mine], len(x_id), len(x_ood))

    def _endless(self, stream: ray.data.DataIterator, epoch: int) -> Iterator[Tensor]:
        passes = 0
        while True:
            seed = int(np.random.default_rng([self.seed, epoch, passes]).integers(2**31))
            for batch in stream.iter_torch_batches(
                batch_size=self.batch_size,
                device=self.device,
                local_shuffle_buffer_size=SHUFFLE_BATCHES * self.batch_size,
                local_shuffle_seed=seed,
            ):
                yield batch["features"]
            passes += 1


def stream_of(table: KeyedTable, index: Index, keys: Sequence[str]) -> ray.data.Dataset:
    """A lazy dataset of the features of some molecules, one read task a shard."""
    places = table.places(keys, index)
    shards = pc.unique(places["shard"]).to_pylist()
    blocks = [places.filter(pc.equal(places["shard"], shard)) for shard in shards]
    dataset = ray.data.from_arrow(blocks).map_batches(
        _read_features, fn_kwargs={"table": table}, batch_format="pyarrow", batch_size=None
    )
    dataset.context.execution_options.preserve_order = True  # a seed gives one order of rows
    return dataset


def _read_features(places: pa.Table, table: KeyedTable) -> dict[str, np.ndarray]:
    return {"features": feature_matrix(table.read_places(places))}
