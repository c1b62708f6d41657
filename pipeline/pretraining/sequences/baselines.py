"""What can be told of a hidden residue without a network: by how often each is, and neighbours.

Both are counted on the proteins that are trained on, and asked for the same residues as the model.
Neighbours are the true ones, even where the model does not see them: more than it is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pipeline.encoders.esm.tokens import CLS, EOS, VOCABULARY
from pipeline.pretraining.sequences.crops import Proteins
from pipeline.pretraining.sequences.masking import RESIDUES, MaskedBatch

STRENGTHS = np.geomspace(0.1, 1e4, 51)  # of the prior, in counts, that are tried
TOKENS, KINDS = len(VOCABULARY), len(RESIDUES)
NUMBER_OF = np.full(TOKENS, -1)  # of a token among RESIDUES; -1 of the others
NUMBER_OF[RESIDUES] = np.arange(KINDS)


class Told(NamedTuple):
    """Cross entropy in nats a residue, its exponential, and the share whose likeliest is right."""

    cross_entropy: float
    perplexity: float
    accuracy: float


class Asked(NamedTuple):
    """Residues to be told: their number among RESIDUES, and tokens left and right, (n,) each."""

    residue: np.ndarray
    left: np.ndarray
    right: np.ndarray


class Baselines(NamedTuple):
    """Probabilities of the twenty residues.

    Attributes
    ----------
    unigram : (20,).
    neighbours : (33, 33, 20), by the tokens left and right.
    strength : of the prior of `neighbours`, in counts: how often the unigram is taken to have been
        seen between each pair.
    """

    unigram: np.ndarray
    neighbours: np.ndarray
    strength: float

    def told(self, asked: Asked) -> dict[str, Told]:
        """How well each tells some residues."""
        rows = np.broadcast_to(self.unigram, (len(asked.residue), KINDS))
        return {
            "unigram": _told(rows, asked.residue),
            "neighbours": _told(self.neighbours[asked.left, asked.right], asked.residue),
        }


def fit_baselines(proteins: Proteins) -> Baselines:
    """Count residues and their neighbours.

    P(x | left, right) = (n(left, x, right) + s P(x)) / (n(left, right) + s), where s has the
    largest likelihood of the same proteins with each residue left out of the counts by which it is
    told (Ney, Essen and Kneser, IEEE TPAMI 1995).
    """
    counts = np.zeros((TOKENS, TOKENS, KINDS))
    for protein, length in enumerate(proteins.lengths):
        whole = proteins.tokens(protein, 0, length)
        asked = _asked(whole, np.flatnonzero(NUMBER_OF[whole] >= 0))
        np.add.at(counts, (asked.left, asked.right, asked.residue), 1)
    unigram = (counts.sum(axis=(0, 1)) + 1) / (counts.sum() + KINDS)
    strength = max(STRENGTHS, key=lambda s: _left_out(counts, unigram, s))
    totals = counts.sum(axis=2, keepdims=True)
    return Baselines(unigram, (counts + strength * unigram) / (totals + strength), strength)


def asked_of(batches: Iterable[MaskedBatch]) -> Asked:
    """The residues that a model has to tell of some batches."""
    rows = (
        (true[real].numpy(), masked[real].numpy())
        for batch in batches
        for true, masked, real in zip(batch.true_tokens, batch.masked, batch.real)
    )
    return Asked(*map(np.concatenate, zip(*(_asked(true, np.flatnonzero(m)) for true, m in rows))))


def _asked(tokens: np.ndarray, places: np.ndarray) -> Asked:
    """Residues of one part; beyond its ends, where it is cut, neighbours are <eos> and <cls>."""
    around = np.concatenate([[CLS], tokens, [EOS]])
    return Asked(NUMBER_OF[tokens[places]], around[places], around[places + 2])


def _left_out(counts: np.ndarray, unigram: np.ndarray, strength: float) -> float:
    """Log likelihood of all residues, each left out of the counts that tell it."""
    totals = np.broadcast_to(counts.sum(axis=2, keepdims=True), counts.shape)
    seen = counts > 0
    prior = strength * np.broadcast_to(unigram, counts.shape)[seen]
    n, total = counts[seen], totals[seen]
    return float((n * np.log((n - 1 + prior) / (total - 1 + strength))).sum())


def _told(probabilities: np.ndarray, residues: np.ndarray) -> Told:
    of = probabilities[np.arange(len(residues)), residues]
    entropy = float(-np.log(of).mean())
    hits = probabilities.argmax(axis=1) == residues
    return Told(entropy, float(np.exp(entropy)), float(hits.mean()))


def told_by_model(losses: dict[str, float]) -> Told:
    """What `SequenceState.held_out` says, in the same terms."""
    entropy = losses["heldout_loss"]
    return Told(entropy, float(np.exp(entropy)), losses["heldout_accuracy"])
