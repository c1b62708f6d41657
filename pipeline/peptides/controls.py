"""What generated peptides stand beside: held-out real ones, the same shuffled, and random ones.

Held-out and shuffled peptides have the lengths of held-out ones, random ones those of generated
ones. What differs between generated and random peptides is thus no matter of length; shuffled ones
are nearer to held-out ones in length, which counts against the generator, not for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.molecules.sequences import STANDARD

GENERATED = "generated"
HELD_OUT, SHUFFLED, RANDOM = "held-out real", "shuffled real", "random of the composition"
# Measures that tables show, and what they are called there.
MEASURES = {
    "residue_jsd": "residues (JSD, bits)",
    "pair_jsd": "pairs (JSD, bits)",
    "length_jsd": "lengths (JSD, bits)",
    "nearest_identity": "identity to the nearest",
    "amp_probability": "antimicrobial",
    "hemolytic_probability": "hemolytic",
}
# Those that verdicts are by. Shuffled peptides have the residues of held-out ones, all lengths are
# given, and held-out ones are unlike training peptides because they were chosen so.
DECIDING = ("pair_jsd", "amp_probability", "hemolytic_probability")


def shuffled(sequences: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Each with its own residues in another order."""
    return ["".join(rng.permutation(list(text))) for text in sequences]


def random_of(
    lengths: Sequence[int], composition: np.ndarray, rng: np.random.Generator
) -> list[str]:
    """Residues drawn one by one.

    Parameters
    ----------
    composition : (20,) shares of the residues, in the order of STANDARD.
    """
    letters = np.array(list(STANDARD))
    return ["".join(rng.choice(letters, size=n, p=composition)) for n in lengths]


def controls_of(
    held_out: Sequence[str], lengths: Sequence[int], composition: np.ndarray, seed: Sequence[int]
) -> dict[str, list[str]]:
    """The three controls of one class.

    Parameters
    ----------
    lengths : of the random ones.
    composition : of its training peptides.
    """
    rng = np.random.default_rng(list(seed))
    return {
        HELD_OUT: list(held_out),
        SHUFFLED: shuffled(held_out, rng),
        RANDOM: random_of(lengths, composition, rng),
    }


def verdict(samples: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """By which measures generated peptides are nearer to held-out ones than both others are.

    The whole 95 % interval of the generated peptides must be nearer than shuffled and random ones.

    Parameters
    ----------
    samples : measures of a class's generated peptides and of its controls.
    """
    real, found = samples[HELD_OUT], {}
    for name in (each for each in DECIDING if each in real):
        farthest = max(abs(end - real[name]) for end in samples[GENERATED][f"{name}_ci95"])
        others = (abs(samples[each][name] - real[name]) for each in (SHUFFLED, RANDOM))
        found[name] = farthest < min(others)
    return found


def told_verdict(name: str, verdict: Mapping[str, bool]) -> str:
    """A verdict on a class in a line."""
    nearer, not_nearer = (
        ", ".join(MEASURES[measure] for measure, is_nearer in verdict.items() if is_nearer == which)
        for which in (True, False)
    )
    return (
        f"class {name}: generated peptides are nearer to held-out real ones than shuffled and "
        f"random ones are by {nearer or 'none of the measures'}"
        + (f"; they are not by {not_nearer}" if not_nearer else "")
    )
