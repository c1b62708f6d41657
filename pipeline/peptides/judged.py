"""What peptides are worth: counts of all of them, and measures beside the training peptides.

Divergences are Jensen–Shannon's in bits (base 2: 0 for the same, 1 for nothing in common), not
their square roots, the distances that scipy's `jensenshannon` gives: 0.13 bits are 0.36. They are
larger the fewer peptides are compared, so samples are told of equally many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.molecules.sequences import STANDARD, canonical_sequence
from pipeline.peptides.activity import Activity
from pipeline.peptides.diffusion.residues import tokens_of
from pipeline.peptides.nearest import Nearest
from pipeline.runtime.errors import RowRejected

RESAMPLES = 200  # of the bootstrap
ALIKE = 0.8  # identity to a training peptide from which on one is nearly it
LIKELY = 0.5  # probability from which on Macrel calls a peptide antimicrobial, or hemolytic


class Judged(NamedTuple):
    """Peptides with what is known of each.

    Attributes
    ----------
    nearest : training peptides, of any class.
    activity : None without Macrel.
    """

    sequences: Sequence[str]
    nearest: Nearest
    activity: Activity | None

    def take(self, rows: np.ndarray) -> Judged:
        """Some of them."""
        return Judged(
            [self.sequences[row] for row in rows],
            Nearest(*(part[rows] for part in self.nearest)),
            None if self.activity is None else Activity(*(part[rows] for part in self.activity)),
        )


def counted(
    sequences: Sequence[str], training: Sequence[str], min_length: int, max_length: int
) -> dict[str, Any]:
    """Counts of peptides that none is left out of.

    Valid is what the data file would have to be: 20 letters, and a length that is allowed. That a
    sampler which is given lengths and decodes to 20 letters is valid says nothing of its peptides.
    """
    different, known = set(sequences), set(training)
    copies = sum(text in known for text in sequences)
    count = max(1, len(sequences))
    return {
        "peptides": len(sequences),
        "valid": sum(_valid(text, min_length, max_length) for text in sequences),
        "different": len(different),
        "uniqueness": len(different) / count,
        "copies_of_training": copies,
        "novelty": 1 - copies / count,
    }


def measured(
    judged: Judged, training: Sequence[str], seed: int, clusters: np.ndarray | None = None
) -> dict[str, Any]:
    """Measures of peptides beside the training peptides of their class, with 95 % intervals.

    The intervals are of a bootstrap over the judged peptides alone, moved so that the resamples'
    median is the value: divergences are larger in resamples, which have fewer different peptides.

    Parameters
    ----------
    clusters : (n,) the cluster of each: whole clusters are drawn; None where each is its own.
    """
    weights = _resampled(len(judged.sequences), clusters, seed)
    found: dict[str, Any] = {"rows": len(judged.sequences)}
    most = max(len(text) for text in (*judged.sequences, *training))
    for name, counts_of in {
        "residue_jsd": composition_counts,
        "pair_jsd": pair_counts,
        "length_jsd": lambda texts: length_counts(texts, most),
    }.items():
        known = counts_of(training).sum(axis=0)
        counts = counts_of(judged.sequences)
        values = [jensen_shannon(drawn, known) for drawn in weights @ counts]
        found |= _told(name, jensen_shannon(counts.sum(axis=0), known), values)
    for name, values in _of_each(judged).items():
        found |= _told(name, float(values.mean()), weights @ values / weights.sum(axis=1))
    return found


def _resampled(count: int, clusters: np.ndarray | None, seed: int) -> np.ndarray:
    """How often each of some peptides is in each resample: (RESAMPLES, count) float64."""
    rng = np.random.default_rng([seed, count])
    of = np.arange(count) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    kinds = int(of.max()) + 1
    drawn = rng.multinomial(kinds, np.full(kinds, 1 / kinds), size=RESAMPLES)
    return drawn[:, of].astype(np.float64)


def jensen_shannon(counts: np.ndarray, others: np.ndarray) -> float:
    """The divergence of two distributions given as counts (m,), in bits."""
    p, q = counts / counts.sum(), others / others.sum()
    middle = (p + q) / 2

    def from_middle(of: np.ndarray) -> float:
        there = of > 0
        return float((of[there] * np.log2(of[there] / middle[there])).sum())

    return max(0.0, (from_middle(p) + from_middle(q)) / 2)


def composition_counts(sequences: Sequence[str]) -> np.ndarray:
    """How often each has each residue: (n, 20), in the order of STANDARD."""
    tokens, starts = tokens_of(sequences)
    return _counts(tokens, np.diff(starts), len(STANDARD))


def pair_counts(sequences: Sequence[str]) -> np.ndarray:
    """How often each has each pair of neighbours: (n, 400)."""
    tokens, starts = tokens_of(sequences)
    lengths = np.diff(starts)
    pairs = tokens[:-1].astype(np.int64) * len(STANDARD) + tokens[1:]
    within = np.ones(len(pairs), bool)
    within[starts[1:-1] - 1] = False  # from the last residue of one to the first of the next
    return _counts(pairs[within], lengths - 1, len(STANDARD) ** 2)


def length_counts(sequences: Sequence[str], most: int) -> np.ndarray:
    """Which length each has: (n, most + 1)."""
    return _counts(
        np.array([len(text) for text in sequences]), np.ones(len(sequences), int), most + 1
    )


def _counts(values: np.ndarray, owned: np.ndarray, kinds: int) -> np.ndarray:
    """How often each of n owners has each kind (n, kinds), of values that lie end to end."""
    owner = np.repeat(np.arange(len(owned)), owned)
    places = owner * kinds + values
    return np.bincount(places, minlength=len(owned) * kinds).reshape(len(owned), kinds)


def _of_each(judged: Judged) -> dict[str, np.ndarray]:
    """Numbers (n,) whose means are told."""
    identity = judged.nearest.identity.astype(float)
    found = {"nearest_identity": identity, "nearly_training": (identity >= ALIKE).astype(float)}
    if judged.activity is not None:
        antimicrobial, hemolytic = (part.astype(float) for part in judged.activity)
        found |= {
            "amp_probability": antimicrobial,
            "called_amp": (antimicrobial > LIKELY).astype(float),
            "hemolytic_probability": hemolytic,
            "called_hemolytic": (hemolytic > LIKELY).astype(float),
        }
    return found


def _told(name: str, value: float, resampled: Sequence[float]) -> dict[str, Any]:
    """A value with its interval; all measures lie from 0 to 1."""
    low, middle, high = np.quantile(resampled, (0.025, 0.5, 0.975))
    ends = np.clip([value + low - middle, value + high - middle], 0, 1)
    return {name: value, f"{name}_ci95": ends.tolist()}


def _valid(sequence: str, min_length: int, max_length: int) -> bool:
    try:
        canonical_sequence(sequence, min_length=min_length, max_length=max_length)
    except RowRejected:
        return False
    return True
