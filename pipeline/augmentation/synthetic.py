"""A diffusion model of the training rows alone, and the rows that it makes for the rare class."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from pipeline.augmentation.holdout import held_out
from pipeline.augmentation.methods import GENERATED, UNGATED
from pipeline.augmentation.settings import AugmentSettings
from pipeline.augmentation.table import Table
from pipeline.generation.diffusion.fitting import Classed, Fitted, fit_generator
from pipeline.generation.diffusion.sampling import draw
from pipeline.generation.figures import learning_figure
from pipeline.generation.quality import Gathered, Judge, gather

log = logging.getLogger(__name__)

DRAWN = 2**31 + 2  # beside the seed: noise that no step of training has
COMMON, RARE = 0, 1  # numbers of the classes


@dataclass(frozen=True)
class Synthetic:
    """What a generator made.

    Attributes
    ----------
    rows : by method and seed, features (k, d) of the rare class.
    counts : by seed, what became of the candidates.
    fitted : the generator.
    learned_from, held_out : rows of its training.
    """

    rows: dict[str, dict[int, np.ndarray]]
    counts: dict[int, dict[str, int]]
    fitted: Fitted
    learned_from: int
    held_out: int


def make_rows(table: Table, wanted: int, settings: AugmentSettings, device: str) -> Synthetic:
    """Train the generator, and draw for each seed as many rare rows as are wanted.

    Held-out rows are cut from the training part by whole groups; validation and test stay unseen.
    What the gate refuses is not filled in: a seed may have fewer rows.
    """
    train = table.train
    is_held = held_out(train, settings.holdout_share, settings.seed)
    learned, held = (
        Classed(train.features[rows], train.is_rare[rows].astype(np.int64))
        for rows in (~is_held, is_held)
    )
    fitted = fit_generator(
        learned, held, (table.common, table.rare), settings, settings.output_dir, device,
        settings.precision,
    )  # fmt: skip
    fitted.generator.write(f"{settings.output_dir}/generator")
    learning_figure(
        fitted.outcome["history"], fitted.loss_by_time, f"{settings.output_dir}/learning.png"
    )
    kept = fitted.generator.scaling.kept
    judge = Judge.fit(kept(learned.of(RARE)), kept(held.of(RARE)), settings.quality_neighbours)
    rows: dict[str, dict[int, np.ndarray]] = {GENERATED: {}, UNGATED: {}}
    counts = {}
    for seed in settings.all_seeds:
        made = _gathered(fitted, judge, wanted, seed, settings, device)
        rows[GENERATED][seed] = made.features[made.returned]
        rows[UNGATED][seed] = made.features[:wanted]
        counts[seed] = made.counts()
        if made.missing:
            log.warning(
                "seed %s: %s of %s generated rows are missing: too few candidates were good "
                "enough, and none is filled in", seed, f"{made.missing:,}", f"{wanted:,}",
            )  # fmt: skip
    return Synthetic(rows, counts, fitted, len(learned.classes), len(held.classes))


def _gathered(
    fitted: Fitted, judge: Judge, wanted: int, seed: int, settings: AugmentSettings, device: str
) -> Gathered:  # fmt: skip
    """Candidates of the rare class."""

    def drawn(classes: np.ndarray, attempt: int) -> np.ndarray:
        rare = np.full(len(classes), RARE)
        return draw(fitted.generator, rare, (seed, DRAWN, attempt), device, fitted.precision)

    (made,) = gather(
        [judge], fitted.generator.scaling.standard, [wanted], drawn,
        threshold=settings.quality_threshold, multiplier=settings.sample_multiplier,
        attempts=settings.max_attempts,
    )  # fmt: skip
    return made
