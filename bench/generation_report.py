"""The tables of generation.md, from the scores that bench.generation made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from bench.report import markdown, with_interval
from pipeline.evaluation.metrics import auroc, metrics_of, paired_interval

if TYPE_CHECKING:
    from bench.generation import Data

REFERENCE = "mahalanobis"
RESAMPLES = 1000
DIFFUSION = "diffusion, in the shell"
NAMES = {
    DIFFUSION: "`--ood synthetic`",
    "Gaussian, in the shell": "as VOS: the 1 % of draws from a Gaussian that are in the same shell",
    "boundary, in the shell": "as NPOS: the farthest fifth of ID features with noise, same shell",
    "noise": "independent Gaussian columns",
    "background": "public molecules that ship (`--ood background`), without those of the sample",
    "real": "the sample's own OOD training molecules: the ceiling",
}


def table(
    sample: str, data: Data, scores: dict[str, list[np.ndarray]], reports: list[dict]
) -> list[str]:
    """A sample's table, the best first: AUROC, and the lead over Mahalanobis distance."""
    is_ood = data.tests[1]
    reference = metrics_of(scores[REFERENCE][0])

    def mean_of(values: list[np.ndarray], less: Callable | None = None) -> Callable:
        each = [metrics_of(one) for one in values]

        def statistic(id_rows: np.ndarray, ood_rows: np.ndarray) -> float:
            mean = np.mean([metrics(id_rows, ood_rows)[0] for metrics in each])
            return mean - (less(id_rows, ood_rows)[0] if less else 0)

        return statistic

    def cell(values: list[np.ndarray], less: Callable | None = None) -> str:
        statistic = mean_of(values, less)
        low, high = paired_interval(is_ood, statistic, samples=RESAMPLES, seed=0)
        sign = "+" if less else ""
        value = statistic(np.flatnonzero(~is_ood), np.flatnonzero(is_ood))
        return with_interval([value, low, high], sign)

    mean = {name: np.mean([auroc(is_ood, one) for one in each]) for name, each in scores.items()}
    rows = []
    for name in sorted(mean, key=mean.get, reverse=True):
        detector, _, source = name.partition(" | ")
        lead = "–" if name == REFERENCE else cell(scores[name], reference)
        areas = [auroc(is_ood, one) for one in scores[name]]
        spread = f"{min(areas):.3f}–{max(areas):.3f}" if len(areas) > 1 else "–"
        rows.append([detector, source or "none", cell(scores[name]), spread, lead])
    sizes = ", ".join(f"{len(x):,} {role}" for role, x in data.inputs.items())
    found = ", ".join(
        f"{made['train'] + made['validation']:,} of {made['candidates']:,}"
        for made in (each["report"] for each in reports)
    )
    losses = reports[0]["report"]["generator"]["losses"]
    far = np.mean([each["far"] for each in reports], axis=0)
    near = np.mean([each["near"] for each in reports])
    return [
        f"## {sample}", "", f"Molecules: {sizes}. Candidates in the shell, by seed: {found}. "
        f"Held-out loss of the first seed's generator {losses['model']:.3f}, of the best linear "
        f"guess {losses['linear']:.3f}.", "",
        "Median distance to the fifth nearest ID training feature: ID test molecules "
        f"{far[0]:.1f}, OOD test molecules {far[1]:.1f}, synthetic features {far[2]:.1f}. Nearness "
        f"to synthetic features finds OOD test molecules with AUROC {near:.3f}.", "",
        *markdown(["detector", "OOD features", "AUROC [95 %]", "seeds", "lead over Mahalanobis"],
                  rows), "",
    ]  # fmt: skip


HEADER = """\
# Training against synthetic OOD features

`OMP_NUM_THREADS=1 taskset -c 0 python -m bench.generation --out FOLDER` on {cpu}, torch {torch}; \
{seeds} seeds.

**Synthetic features are worse than none here.** Heads trained against them rank OOD test \
molecules below ID ones, on both samples, as do those of VOS' and NPOS' kind; distances alone do \
better, and public molecules far better. Synthetic features lie as far out as they were made to, \
but in the directions in which ID molecules vary anyway: real OOD molecules are farther from them \
than ID ones.

AUROC on ID and OOD test molecules of heads on MiniMol's features: mean over seeds, with the 95 %
interval of a bootstrap over molecules. The seed decides the generator, what is drawn, and the head.
Heads are trained with ID molecules and the OOD features named, and stop by their AUROC on ID
validation molecules and OOD features of the same kind. The descriptor alone was chosen on real OOD
training molecules.

""" + "\n".join(["| OOD features | what they are |", "| --- | --- |",
                 *(f"| {name} | {told} |" for name, told in NAMES.items()), ""])  # fmt: skip
