"""Global batches of ID and OOD molecules for training, the same for any number of workers.

A global batch has the same molecules in the same order however many workers there are; each
worker takes every `world`-th of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import ray.data
import torch

SHUFFLE_BATCHES = 4  # a streamed set is shuffled within a window of this many batches


class Rows(Protocol):
    """What training batches are cut from: features (n, width), or rows of the trunk."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Rows: ...


class GlobalBatch(NamedTuple):
    """One worker's share of a batch, and the sizes of the whole batch.

    `domains` are the numbers of the whole batch's ID and OOD domains, (id_total,) and (ood_total,),
    if they were asked for.
    """

    id_rows: Rows
    ood_rows: Rows
    id_total: int
    ood_total: int
    domains: tuple[torch.Tensor, torch.Tensor] | None = None


class Batches(Protocol):
    """A training set that can be passed over again and again."""

    def epoch(self, epoch: int) -> Iterator[GlobalBatch]:
        """One pass: the larger of the two sets once, the smaller one as often as needed."""
        ...


class ResidentBatches:
    """Rows that stay in memory, features on the device; a batch is an index into them.

    Parameters
    ----------
    batch_size : molecules of each kind in a global batch.
    device : where an index must be.
    domains : each molecule's domain, of ID and of OOD rows; None if batches need none.
    """

    def __init__(
        self, id_rows: Rows, ood_rows: Rows, batch_size: int, seed: int, rank: int, world: int,
        device: torch.device, domains: tuple[torch.Tensor, torch.Tensor] | None = None,
    ):  # fmt: skip
        self.domains = domains
        self.id_rows, self.ood_rows, self.device = id_rows, ood_rows, device
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world

    def epoch(self, epoch: int) -> Iterator[GlobalBatch]:
        """See `Batches.epoch`."""
        sizes = len(self.id_rows), len(self.ood_rows)
        for id_rows, ood_rows in batch_indices(sizes, self.batch_size, self.seed, epoch):
            mine = slice(self.rank, None, self.world)
            domains = self.domains and (self.domains[0][id_rows], self.domains[1][ood_rows])
            yield GlobalBatch(
                self.id_rows[torch.from_numpy(id_rows[mine]).to(self.device)],
                self.ood_rows[torch.from_numpy(ood_rows[mine]).to(self.device)],
                len(id_rows),
                len(ood_rows),
                domains,
            )


def batch_indices(
    sizes: tuple[int, int], batch_size: int, seed: int, epoch: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """An epoch's global batches: the rows of ID and of OOD molecules of each.

    The larger set comes once, the smaller one as often as needed.

    Parameters
    ----------
    sizes : numbers of ID and of OOD rows.
    """
    steps = math.ceil(max(sizes) / batch_size)
    rng = np.random.default_rng([seed, epoch])
    id_parts, ood_parts = (
        _parts(rng, size, batch_size, steps, largest=size == max(sizes)) for size in sizes
    )
    return list(zip(id_parts, ood_parts))


def _parts(
    rng: np.random.Generator, size: int, batch_size: int, steps: int, largest: bool
) -> list[np.ndarray]:
    if largest:
        order = rng.permutation(size)
        return [order[s * batch_size : (s + 1) * batch_size] for s in range(steps)]
    per_step = min(batch_size, size)
    rounds = math.ceil(steps * per_step / size)
    order = np.concatenate([rng.permutation(size) for _ in range(rounds)])
    return [order[s * per_step : (s + 1) * per_step] for s in range(steps)]


class StreamedBatches:
    """Rows that stream from the store through Ray Data, for sets larger than memory.

    Parameters
    ----------
    id_stream, ood_stream : Ray Data iterators over all rows of a store's table.
    id_size, ood_size : their numbers of rows.
    to_rows : what makes rows of a piece of the table.
    """

    def __init__(
        self, id_stream: ray.data.DataIterator, ood_stream: ray.data.DataIterator, id_size: int,
        ood_size: int, batch_size: int, seed: int, rank: int, world: int,
        to_rows: Callable[[pa.Table], Rows],
    ):  # fmt: skip
        self.streams = (id_stream, id_size), (ood_stream, ood_size)
        self.batch_size, self.seed, self.to_rows = batch_size, seed, to_rows
        self.rank, self.world = rank, world

    def epoch(self, epoch: int) -> Iterator[GlobalBatch]:
        """See `Batches.epoch`; both sets are read anew, in the store's order, shuffled locally."""
        (id_stream, id_size), (ood_stream, ood_size) = self.streams
        steps = math.ceil(max(id_size, ood_size) / self.batch_size)
        id_batches = self._endless(id_stream, epoch)
        ood_batches = self._endless(ood_stream, epoch)
        for _ in range(steps):
            id_rows, ood_rows = next(id_batches), next(ood_batches)
            mine = slice(self.rank, None, self.world)
            yield GlobalBatch(id_rows[mine], ood_rows[mine], len(id_rows), len(ood_rows))

    def _endless(self, stream: ray.data.DataIterator, epoch: int) -> Iterator[Rows]:
        passes = 0
        while True:
            seed = int(np.random.default_rng([self.seed, epoch, passes]).integers(2**31))
            for batch in stream.iter_batches(
                batch_size=self.batch_size,
                batch_format="pyarrow",
                local_shuffle_buffer_size=SHUFFLE_BATCHES * self.batch_size,
                local_shuffle_seed=seed,
            ):
                yield self.to_rows(batch)
            passes += 1
