"""What a step of training is of: peptides of about one length, drawn by seed and number alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.peptides.diffusion.residues import Peptides, padded_length
from pipeline.peptides.settings import PeptideGeneratorSettings

T = TypeVar("T")
AHEAD = 4  # batches that a thread makes ahead


class Batch(NamedTuple):
    """Peptides side by side (B, N), their steps and what noise they get.

    Attributes
    ----------
    latents, tokens, real, structures, has_structure : as of `residues.Padded`.
    classes, steps : (B,) int64.
    seed : of the noise.
    guess_first : whether the model sees a guess of its own.
    """

    latents: Tensor
    tokens: Tensor
    real: Tensor
    structures: Tensor | None
    has_structure: Tensor | None
    classes: Tensor
    steps: Tensor
    seed: int
    guess_first: bool

    def map(self, of: Callable[[Tensor], Tensor]) -> Batch:
        """With something done to each tensor."""
        return Batch(*(of(part) if isinstance(part, Tensor) else part for part in self))

    def part(self, which: slice) -> Batch:
        """Some of the peptides."""
        return self.map(lambda tensor: tensor[which])


class Batches:
    """Makes the batch of any number: those of one length bucket, so many as the budget holds.

    A bucket is drawn as often as its peptides weigh, so that each peptide is seen as often as its
    class says (`class_sampling`), whatever its length.

    Parameters
    ----------
    any_class : number of the class that stands for a hidden one.
    """

    def __init__(self, peptides: Peptides, settings: PeptideGeneratorSettings, any_class: int):
        self.peptides, self.settings, self.any_class = peptides, settings, any_class
        weights = np.ones(len(peptides.classes))
        if settings.class_sampling == "balanced":
            weights /= np.bincount(peptides.classes)[peptides.classes]
        padded = np.array([padded_length(int(n)) for n in peptides.lengths])
        self.lengths = np.unique(padded)
        self.members = [np.flatnonzero(padded == length) for length in self.lengths]
        shares = [weights[rows] / weights[rows].sum() for rows in self.members]
        self.steps = [np.cumsum(share) for share in shares]
        self.rows = np.array([max(1, settings.batch_residues // n) for n in self.lengths])
        often = np.array([weights[rows].sum() for rows in self.members]) / self.rows
        self.often = often / often.sum()

    def __call__(self, number: int) -> Batch:
        """The batch of a number."""
        rng = np.random.default_rng([self.settings.seed, number])
        return self.of_bucket(rng.choice(len(self.lengths), p=self.often), rng)

    def of_bucket(self, bucket: int, rng: np.random.Generator) -> Batch:
        """A batch of the peptides that are padded to `lengths[bucket]`."""
        count, length = self.rows[bucket], int(self.lengths[bucket])
        places = np.searchsorted(self.steps[bucket], rng.random(count), side="right")
        members = self.members[bucket]
        rows = members[np.minimum(places, len(members) - 1)]
        classes = self.peptides.classes[rows]
        hidden = rng.random(count) < self.settings.class_dropout
        steps = rng.integers(self.settings.diffusion_steps, size=count)
        no_structure = rng.random(count) < self.settings.structure_dropout
        guess_first = bool(rng.random() < self.settings.self_conditioning)
        batch = batch_of(
            self.peptides, rows, length, np.where(hidden, self.any_class, classes), steps,
            int(rng.integers(2**63)), guess_first,
        )  # fmt: skip
        if batch.has_structure is None:
            return batch
        return batch._replace(has_structure=batch.has_structure & ~torch.from_numpy(no_structure))


def batch_of(
    peptides: Peptides, rows: np.ndarray, length: int, classes: np.ndarray, steps: np.ndarray,
    seed: int = 0, guess_first: bool = False,
) -> Batch:  # fmt: skip
    """A batch of some peptides, padded to a length; see `Batch`."""
    padded = peptides.padded(rows, length)
    parts = [None if part is None else torch.from_numpy(part) for part in padded]
    return Batch(*parts, torch.from_numpy(classes), torch.from_numpy(steps), seed, guess_first)


def made_ahead(make: Callable[[int], T], numbers: Iterable[int], threads: int) -> Generator[T]:
    """What is made of each number, in their order, by threads that begin before they are asked."""
    with ThreadPoolExecutor(threads, "batches") as pool:
        waiting: deque = deque()
        try:
            for number in numbers:
                waiting.append(pool.submit(make, number))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
