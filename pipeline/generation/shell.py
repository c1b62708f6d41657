"""Which features lie just beyond some known ones, and candidates drawn until enough of them do.

A feature's p-value is the share of held-out real features that lie at least as far from the known
ones, as in conformal prediction. The shell is a range of small p-values: farther out than most
real features, not farther than all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.generation.quality import Judge
from pipeline.generation.settings import ShellSettings
from pipeline.runtime.errors import InputError

log = logging.getLogger(__name__)

LEAST = 20  # rows of both roles, below which nothing can be trained
VALIDATION_SHARE = 0.2
ROLES = ("train", "validation")
# Candidates of a round: at least, and at most for each row wanted; how many of the first are
# thought to be in the shell; and a bit more than seem needed.
FEWEST, MOST_EACH, FIRST_SHARE, MARGIN = 512, 10, 0.25, 1.2


class Candidates(NamedTuple):
    """Features (n, d) float32, and the step of diffusion (n,) from which each was made."""

    features: np.ndarray
    steps: np.ndarray


# Candidates made of known features (n, d) float32; the numbers seed what is drawn.
Propose = Callable[[np.ndarray, tuple[int, ...]], Candidates]


@dataclass(frozen=True)
class Shell:
    """A range of p-values.

    Attributes
    ----------
    judge : knows the distances of held-out features to their k-th nearest known one.
    least, most : the p-values that are in it.
    """

    judge: Judge
    least: float
    most: float

    @classmethod
    def fit(cls, known: np.ndarray, held_out: np.ndarray, settings: ShellSettings) -> Shell:
        """Around standardised features (n, d), by others (m, d).

        Raises
        ------
        InputError
            If m is so small that nothing could be in the shell.
        """
        shell = cls(
            Judge.fit(known, held_out, settings.neighbours), settings.least_p, settings.most_p
        )
        if shell.smallest > settings.most_p:
            raise InputError(
                f"--ood synthetic: {len(held_out)} ID molecules are held out of the generator, and "
                f"p-values of at most {settings.most_p:g} need at least "
                f"{int(np.ceil(1 / settings.most_p - 1e-9)) - 1}; give a larger training set"
            )
        if shell.smallest > settings.least_p:
            log.info(
                "synthetic OOD: by %s held-out ID molecules no p-value is below %.4f: nothing is "
                "too far out for the shell", f"{len(held_out):,}", shell.smallest,
            )  # fmt: skip
        return shell

    @property
    def smallest(self) -> float:
        """The least p-value that there can be."""
        return 1 / (len(self.judge.held_out) + 1)

    def p_values(self, features: np.ndarray) -> np.ndarray:
        """(1 + held-out features at least as far out) / (m + 1), of features (n, d): (n,)."""
        m = len(self.judge.held_out)
        return (1 + np.rint(m * self.judge(features).quality)) / (m + 1)

    def holds(self, p_values: np.ndarray) -> np.ndarray:
        """Which p-values (n,) are in it."""
        return (p_values >= self.least) & (p_values <= self.most)


class Sample(NamedTuple):
    """Features (n, d) of one role, with their p-values and steps of diffusion (n,)."""

    features: np.ndarray
    p_values: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True)
class Synthetic:
    """Synthetic OOD features; those to validate with are made of other molecules.

    Attributes
    ----------
    report : ready for JSON: how many were asked for and found, and in which shell.
    """

    train: Sample
    validation: Sample
    report: dict[str, Any]


def in_shell(
    known: np.ndarray, shell: Shell, count: int, propose: Propose, attempts: int, seed: int
) -> Synthetic:
    """Candidates in the shell, until there are enough of both roles or the attempts are used up.

    Parameters
    ----------
    known : (n, d) features that candidates are made of; a fifth of them, drawn at random, make
        those to validate with and no others.
    count : rows of both roles together; a fifth validate.
    attempts : rounds of candidates; what is missing then stays missing, and is told.

    Raises
    ------
    InputError
        If fewer than LEAST are found.
    """
    order = np.random.default_rng([seed, len(known)]).permutation(len(known))
    cut, validating = (round(VALIDATION_SHARE * number) for number in (len(known), count))
    sources = known[order[cut:]], known[order[:cut]]
    samples, drawn = zip(
        *(
            _sample(sources[number], shell, wanted, propose, attempts, (seed, number))
            for number, wanted in enumerate((count - validating, validating))
        )
    )
    report = _report(samples, sum(drawn), shell, count, len(known))
    found = [len(sample.p_values) for sample in samples]
    if sum(found) < LEAST or not all(found):
        raise InputError(
            f"--ood synthetic: {sum(found)} of {report['candidates']:,} candidates lie just beyond "
            f"the training set (p-values {shell.least:g} to {shell.most:g}), too few to train "
            "with; give molecules unlike it by --ood_file, or take --ood background"
        )
    if report["shortfall"]:
        log.warning(
            "synthetic OOD: %s of %s features are missing: too few of %s candidates lie just "
            "beyond the training set, and none is filled in", f"{report['shortfall']:,}",
            f"{count:,}", f"{report['candidates']:,}",
        )  # fmt: skip
    return Synthetic(*samples, report)


def _sample(
    sources: np.ndarray, shell: Shell, wanted: int, propose: Propose, attempts: int,
    seed: tuple[int, int],
) -> tuple[Sample, int]:  # fmt: skip
    """Those of one role, and how many candidates were drawn; `seed` ends in the role's number."""
    found = [Sample(sources[:0], np.empty(0), np.empty(0, np.int64))]
    have = drawn = 0
    for attempt in range(attempts):
        if have == wanted:
            break
        share = max(1, have) / drawn if drawn else FIRST_SHARE
        most = max(FEWEST, MOST_EACH * wanted)
        size = int(np.clip(MARGIN * (wanted - have) / share, FEWEST, most))
        rows = np.random.default_rng([*seed, attempt]).integers(len(sources), size=size)
        made = propose(sources[rows], (seed[1], attempt))
        p_values = shell.p_values(made.features)
        inside = np.flatnonzero(shell.holds(p_values))[: wanted - have]
        found.append(Sample(made.features[inside], p_values[inside], made.steps[inside]))
        have, drawn = have + len(inside), drawn + size
        log.info("synthetic OOD, %s, round %s of %s: %s of %s features, of %s candidates",
                 ROLES[seed[1]], attempt + 1, attempts, f"{have:,}", f"{wanted:,}",
                 f"{drawn:,}")  # fmt: skip
    return Sample(*map(np.concatenate, zip(*found))), drawn


def _report(
    samples: Sequence[Sample], candidates: int, shell: Shell, count: int, known: int
) -> dict[str, Any]:
    p_values = np.concatenate([sample.p_values for sample in samples])
    spread = np.quantile(p_values, [0, 0.5, 1]).tolist() if len(p_values) else [None] * 3
    return {
        "asked": count,
        **{role: len(sample.p_values) for role, sample in zip(ROLES, samples)},
        "shortfall": count - len(p_values),
        "candidates": candidates,
        "shell": {"least_p": max(shell.least, shell.smallest), "most_p": shell.most,
                  "id_train": known, "held_out": len(shell.judge.held_out)},
        "p_values": dict(zip(("least", "median", "most"), spread)),
    }  # fmt: skip
