"""The tables of trust.md, from the results that bench.trust kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.stats
import sklearn

from bench.report import cpu_name, markdown
from pipeline.suite.results.statistics import holm

OURS, TANIMOTO = "error model", ("Tanimoto, nearest", "Tanimoto, mean of 5")
SPREAD = "spread of the model"
SIMPLE = (SPREAD, *TANIMOTO)  # what the error model must be better than
FIRST = (0, 1, 2)  # seeds that were measured before the others
TUNED = ("CHEMBL231_", "CHEMBL2147_", "CHEMBL238_", "CHEMBL4005_", "CHEMBL287_", "CHEMBL2971_")
MODELS = {"forest": "forest on ECFP4", "mlp": "MLPs on MiniMol", "gp": "GP, Tanimoto"}
RIVALS = (
    *SIMPLE, "kNN on MiniMol", "Mahalanobis on MiniMol", "energy, outliers of the same target",
    "energy, other targets",
    "error model + energy", "error model of your own predictions", "shuffled error model",
)  # fmt: skip
COLUMNS = ("spearman", "auroc_worst", "ratio", "excess_aurc")
TO_REACH = {
    "AUROC of the worst fifth": "≥ 0.71", "Spearman": "≥ 0.38", "better than the spread": "≥ 11",
    "better than Tanimoto, the fewer of both distances": "≥ 9", "coverage in ID": "0.88–0.93",
    "coverage in OOD": "≥ 0.88", "width on ID against constant": "≤ 1",
}  # fmt: skip


class Results:
    """What was kept of all pairs of a target and a seed: `kept[target][seed]`."""

    def __init__(self, kept: dict[str, dict[int, dict]]):
        self.kept = kept
        self.seeds = list(next(iter(kept.values())))

    @classmethod
    def read(cls, folder: Path, seeds: list[int], targets: list[str]) -> Results:
        """All that `bench.trust` kept of these."""
        return cls(
            {
                target: {
                    seed: json.loads((folder / f"{target}_{seed}.json").read_text())
                    for seed in seeds
                }
                for target in targets
            }
        )

    def of_seeds(self, seeds: Iterable[int]) -> Results:
        """Those of some seeds alone."""
        seeds = list(seeds)
        return Results({target: {s: of[s] for s in seeds} for target, of in self.kept.items()})

    def added(self) -> Results | None:
        """Those of the seeds that were added to the first; None unless there are both."""
        later = [seed for seed in self.seeds if seed not in FIRST]
        return self.of_seeds(later) if set(FIRST) < set(self.seeds) else None

    def of_targets(self, prefixes: tuple[str, ...], those: bool) -> Results:
        """Those of the targets that begin so, or of the others."""
        return Results({t: of for t, of in self.kept.items() if t.startswith(prefixes) == those})

    def by_target(self, score: str, metric: str, models: Iterable[str] = MODELS) -> np.ndarray:
        """A metric's mean over models and seeds, (targets,)."""
        return np.array(
            [
                np.mean([_metric(one["models"][model], score, metric)
                         for one in of_target.values() for model in models])
                for of_target in self.kept.values()
            ]
        )  # fmt: skip

    def interval(self, kind: str, what: str, models: Iterable[str] = MODELS) -> float:
        """Mean coverage or width of one kind of intervals over targets, models and seeds."""
        return float(
            np.mean([one["models"][model]["intervals"][kind][what]
                     for of_target in self.kept.values() for one in of_target.values()
                     for model in models])
        )  # fmt: skip


def _metric(model: dict, score: str, metric: str) -> float:
    found = model["scores"][score]
    return found["rmse_kept_50"] / model["rmse"] if metric == "ratio" else found[metric]


def report(folder: Path, seeds: list[int], targets: list[str], digest: str) -> str:
    """The page."""
    results = Results.read(folder, seeds, targets)
    sizes = [one["sizes"] for of_target in results.kept.values() for one in of_target.values()]
    spent = [
        one["fit_cpu_seconds"] for of_target in results.kept.values() for one in of_target.values()
    ]
    mean = {part: np.mean([each[part] for each in sizes]) for part in sizes[0]}
    lines = [
        "# Which scores find the errors of predictions",
        "",
        f"`python -m bench.trust --table activity_12_targets.csv.gz --out FOLDER` on {cpu_name()}, "
        f"scikit-learn {sklearn.__version__}: {len(targets)} targets, each by itself, seeds "
        f"{', '.join(map(str, seeds))}. Clusters (ECFP4, 50 main components, 30 means) in seeded "
        "order: 60 % ID, cut 70/10/20 at random into training, validation and test; the rest "
        "halved into outliers and OOD test. The splits were made and written before anything was "
        f"fitted (SHA-256 {digest}…); on the mean "
        + ", ".join(f"{count:.0f} {part.replace('_', ' ')}" for part, count in mean.items())
        + ". Scores are judged on ID and OOD test together. The error model is fitted on "
        "out-of-fold errors of the training part alone; validation calibrates intervals and is "
        f"used for nothing else. Its fit, with those of all property models for all folds, took "
        f"{np.mean(spent):.0f} s of one core on the mean.",
        "",
        "The recipe was chosen by about 25 variants on splits of another seed (7) of six of the "
        "same targets (CHEMBL231, 2147, 238, 4005, 287, 2971); there it had 0.717 where Tanimoto "
        "had 0.685. It was not changed after the splits of this page were scored.",
        "",
        *_first(results),
        *_reached(results),
        "",
        "## Scores",
        "",
        "Means over targets, seeds and three property models (forest of 200 on ECFP4; five MLPs on "
        "MiniMol; GP with Tanimoto kernel). Wins: targets on which the error model's AUROC is "
        "higher; p: Wilcoxon over targets, two-sided, adjusted by Holm for all rows.",
        "",
        *_scores(results),
        "",
        "*Your own predictions*: as if the property model were a user's, who gives out-of-fold "
        "predictions and no spread; the error model then has the two other models. *+ energy*: "
        "mean of both ranks. *shuffled*: the error model's scores in another order.",
        "",
        "## By property model",
        "",
        *_by_model(results),
        "",
        "## By seed",
        "",
        *_by_seed(results),
        "",
        "## By target",
        "",
        *_by_target(results),
        "",
        "## Intervals at 90 %",
        "",
        *_intervals(results),
        "",
        _of_energy(results),
        "",
    ]
    return "\n".join(lines)


def _first(results: Results) -> list[str]:
    """What was known before seeds were added, and what the added ones say alone."""
    added = results.added()
    if added is None:
        return []
    tuned, others = (results.of_targets(TUNED, those) for those in (True, False))
    return [
        f"Seeds {', '.join(map(str, FIRST))} were measured first, on another machine, and missed "
        "two of the goals: Spearman 0.375, better than Tanimoto on 8 targets (p = 0.23). Then the "
        f"other {len(added.seeds)} were added at once, without a change of the recipe, since a "
        "mean over seeds varies with them. Below, the first are measured again with the others, "
        "and goals are shown for both alone; p-values are nominal for the added ones only. By the "
        f"added ones the lead over Tanimoto to the nearest is {_lead(added, TANIMOTO[0])}.",
        "",
        "The recipe was chosen on half of these targets. The lead in AUROC over Tanimoto to the "
        f"nearest is {_lead(tuned, TANIMOTO[0])} on these, and {_lead(others, TANIMOTO[0])} on the "
        f"others; over the spread of the model {_lead(tuned, SPREAD)}, and "
        f"{_lead(others, SPREAD)}.",
        "",
    ]


def _lead(results: Results, rival: str) -> str:
    """Mean lead in AUROC of the worst fifth, wins, and Wilcoxon's p over targets."""
    metric = "auroc_worst"
    leads = results.by_target(OURS, metric) - results.by_target(rival, metric)
    p = float(scipy.stats.wilcoxon(leads).pvalue)
    told = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"{leads.mean():+.3f} ({int((leads > 0).sum())} of {len(leads)} targets, {told})"


def _wins(results: Results, rival: str) -> int:
    metric = "auroc_worst"
    return int(np.sum(results.by_target(OURS, metric) > results.by_target(rival, metric)))


def _reached(results: Results) -> list[str]:
    columns, added = {f"{len(results.seeds)} seeds": results}, results.added()
    if added is not None:
        columns |= {"the first three": results.of_seeds(FIRST), "the added": added}
    found = [_goals(each) for each in columns.values()]
    rows = [[name, aim, *values] for (name, aim), *values in zip(TO_REACH.items(), *found)]
    return markdown(("error model", "to reach", *columns), rows)


def _goals(results: Results) -> list[str]:
    tanimoto = min(_wins(results, rival) for rival in TANIMOTO)
    width = results.interval(OURS, "id_width") / results.interval("constant", "id_width")
    return [
        f"{results.by_target(OURS, 'auroc_worst').mean():.3f}",
        f"{results.by_target(OURS, 'spearman').mean():.3f}",
        f"{_wins(results, SPREAD)} of {len(results.kept)}",
        f"{tanimoto} of {len(results.kept)}",
        f"{results.interval(OURS, 'id_coverage'):.3f}",
        f"{results.interval(OURS, 'ood_coverage'):.3f}",
        f"{width:.2f}",
    ]


def _scores(results: Results) -> list[str]:
    ours = results.by_target(OURS, "auroc_worst")
    raw = [
        float(scipy.stats.wilcoxon(ours, results.by_target(rival, "auroc_worst")).pvalue)
        for rival in RIVALS
    ]
    adjusted = dict(zip(RIVALS, holm(raw)))
    rows = []
    for name in (OURS, *RIVALS, "oracle"):
        cells = [f"{results.by_target(name, column).mean():.3f}" for column in COLUMNS]
        versus = (
            [f"{_wins(results, name)}", f"{adjusted[name]:.4f}"] if name in adjusted else ["", ""]
        )
        rows.append([name, *cells, *versus])
    header = (
        "score", "Spearman", "AUROC of the worst fifth", "RMSE of the better half / of all",
        "excess AURC", "wins", "p",
    )  # fmt: skip
    return markdown(header, rows)


def _by_model(results: Results) -> list[str]:
    return _area_and_correlation({told: (results, [model]) for model, told in MODELS.items()})


def _by_seed(results: Results) -> list[str]:
    """How far a figure moves with the seed, which decides splits and fits."""
    return _area_and_correlation(
        {str(seed): (results.of_seeds([seed]), MODELS) for seed in results.seeds}
    )


def _area_and_correlation(parts: dict[str, tuple[Results, Iterable[str]]]) -> list[str]:
    """A row for each part of the results and some of the property models."""
    names = (OURS, *SIMPLE)
    rows = [
        [told, *(f"{part.by_target(name, 'auroc_worst', models).mean():.3f} / "
                 f"{part.by_target(name, 'spearman', models).mean():.3f}" for name in names)]
        for told, (part, models) in parts.items()
    ]  # fmt: skip
    return markdown(("AUROC of the worst fifth / Spearman", *names), rows)


def _by_target(results: Results) -> list[str]:
    names = (OURS, *SIMPLE)
    columns = [results.by_target(name, "auroc_worst") for name in names]
    rows = [
        [target, *(f"{value:.3f}" for value in values)]
        for target, values in zip(results.kept, zip(*columns))
    ]
    return markdown(("AUROC of the worst fifth", *names), rows)


def _intervals(results: Results) -> list[str]:
    rows = [
        [kind, *(f"{results.interval(kind, what):.3f}"
                 for what in ("id_coverage", "ood_coverage", "id_width", "ood_width"))]
        for kind in ("constant", "spread", OURS)
    ]  # fmt: skip
    return markdown(
        ("scaled by", "coverage in ID", "coverage in OOD", "width in ID", "width in OOD"), rows
    )


def _of_energy(results: Results) -> str:
    gain = results.by_target("error model + energy", "auroc_worst") - results.by_target(
        OURS, "auroc_worst"
    )
    return (
        f"What energy adds to the error model: {gain.mean():+.3f} in AUROC of the worst fifth "
        f"(better on {int((gain > 0).sum())} of {len(gain)} targets). Energy detects unlike "
        "molecules; the error model says what not to trust."
    )
