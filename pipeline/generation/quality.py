"""How good candidates are, by real features that the generator never saw, and which are returned.

A candidate's quality is the share of held-out real features of its class that lie at least as far
from the class's training features: a typical real one has 0.5. What lies closer to a training
feature than those lie to each other is a copy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pipeline.detectors.distance.feature_distances import nearest_features

log = logging.getLogger(__name__)

COPY_QUANTILE = 0.01  # of the distances between different training features, leave-one-out
MOST_FOR_COPIES = 10_000  # training features whose nearest other one is looked for
LOOSE = 0.05  # a second threshold that is always told


class Judged(NamedTuple):
    """Quality (n,) float64 of candidates, and whether each is a copy (n,) bool."""

    quality: np.ndarray
    is_copy: np.ndarray


@dataclass(frozen=True)
class Judge:
    """What measures candidates of one class.

    Attributes
    ----------
    train : (n, d) standardised training features.
    neighbours : the distance is that to this nearest of them.
    held_out : (h,) distances of the held-out features, rising.
    copy_distance : what is not farther from its nearest training feature is a copy.
    """

    train: np.ndarray
    neighbours: int
    held_out: np.ndarray
    copy_distance: float

    @classmethod
    def fit(cls, train: np.ndarray, held_out: np.ndarray, neighbours: int) -> Judge:
        """Of standardised features (n, d) and (h, d) of a class."""
        k = min(neighbours, len(train) - 1)
        far = nearest_features(held_out, train, k).distance[:, -1]
        distinct = np.unique(train, axis=0)
        rng = np.random.default_rng(len(distinct))
        some = np.sort(rng.permutation(len(distinct))[:MOST_FOR_COPIES])
        among = nearest_features(distinct[some], distinct, 1, own=some).distance[:, 0]
        return cls(train, k, np.sort(far), float(np.quantile(among, COPY_QUANTILE)))

    def __call__(self, candidates: np.ndarray) -> Judged:
        """Of standardised candidates (n, d)."""
        distance = nearest_features(candidates, self.train, self.neighbours).distance
        nearer = np.searchsorted(self.held_out, distance[:, -1], side="left")
        return Judged(1 - nearer / len(self.held_out), distance[:, 0] <= self.copy_distance)


@dataclass(frozen=True)
class Gathered:
    """What became of one class's candidates; every one is counted once.

    Attributes
    ----------
    features : (n, d) candidates of all rounds, in the order in which they were drawn.
    quality, is_copy : (n,) of them.
    """

    wanted: int
    threshold: float
    features: np.ndarray
    quality: np.ndarray
    is_copy: np.ndarray

    @classmethod
    def nothing(cls, wanted: int, threshold: float, columns: int) -> Gathered:
        """Before any candidate is drawn."""
        features = np.empty((0, columns), np.float32)
        return cls(wanted, threshold, features, np.empty(0), np.empty(0, bool))

    def and_more(self, features: np.ndarray, judged: Judged) -> Gathered:
        """With another round's candidates (m, d)."""
        return replace(
            self,
            features=np.concatenate([self.features, features]),
            quality=np.concatenate([self.quality, judged.quality]),
            is_copy=np.concatenate([self.is_copy, judged.is_copy]),
        )

    def passing(self, threshold: float) -> np.ndarray:
        """Which candidates are no copies and at least that good: (n,) bool."""
        return ~self.is_copy & (self.quality >= threshold)

    @property
    def returned(self) -> np.ndarray:
        """The first of those that pass, at most as many as are wanted: (n,) bool."""
        passing = self.passing(self.threshold)
        return passing & (np.cumsum(passing) <= self.wanted)

    @property
    def missing(self) -> int:
        """How many are still wanted."""
        return self.wanted - int(self.returned.sum())

    def counts(self) -> dict[str, int]:
        """Candidates by what became of them; the numbers but `asked` and `shortfall` add up."""
        passing = self.passing(self.threshold)
        return {
            "asked": self.wanted,
            "candidates": len(self.quality),
            "copies_refused": int(self.is_copy.sum()),
            "below_threshold": int((~self.is_copy & ~passing).sum()),
            "passing_not_needed": int(passing.sum() - self.returned.sum()),
            "returned": int(self.returned.sum()),
            "shortfall": self.missing,
        }


Draw = Callable[[np.ndarray, int], np.ndarray]


def gather(
    judges: Sequence[Judge],
    standardised: Callable[[np.ndarray], np.ndarray],
    wanted: Sequence[int],
    draw: Draw,
    *,
    threshold: float,
    multiplier: float,
    attempts: int,
) -> list[Gathered]:
    """Draw candidates of all classes together, until enough pass or the attempts are used up.

    Parameters
    ----------
    judges : of each class.
    standardised : features (n, d) as the judges take them.
    wanted : samples of each class.
    draw : candidates (n, d) of classes (n,) in some round.
    threshold, multiplier, attempts : see `GateSettings`.
    """
    columns = judges[0].train.shape[1]
    gathered = [Gathered.nothing(number, threshold, columns) for number in wanted]
    for attempt in range(attempts):
        sizes = [int(np.ceil(multiplier * each.missing)) for each in gathered]
        if not any(sizes):
            break
        classes = np.repeat(np.arange(len(sizes)), sizes)
        made = draw(classes, attempt)
        for number, judge in enumerate(judges):
            mine = made[classes == number]
            gathered[number] = gathered[number].and_more(mine, judge(standardised(mine)))
        told = ", ".join(f"{each.wanted - each.missing:,} of {each.wanted:,}" for each in gathered)
        log.info("round %s of %s: %s candidates; returned so far: %s", attempt + 1, attempts,
                 f"{len(classes):,}", told)  # fmt: skip
    return gathered
