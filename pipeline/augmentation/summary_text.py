"""What was found, as a text to read in a minute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.augmentation.intervals import HARMS, HELPS, SAME, TOO_FEW
from pipeline.augmentation.methods import PLAIN
from pipeline.runtime.text import aligned

TITLES = {"f1": "F1", "mcc": "MCC", "auroc": "AUROC", "aupr": "AUPR"}
STAR, AGREE = " *", "the interval excludes 0, and all seeds agree"
ORDER = (HELPS, HARMS, SAME, TOO_FEW)


def summary_text(summary: Mapping[str, Any]) -> list[str]:
    """The summary as lines, also one read back from JSON."""
    settings = summary["settings"]
    lines = [
        f"rows       {summary['rows_in']:,} in the file, {summary['rejected']:,} rejected, "
        f"{summary['rows_of_other_splits']:,} of other splits",
        *(f"{_part(name, counts, summary)}" for name, counts in summary["parts"].items()),
        f"features   {summary['features']}, {summary['columns']:,} columns",
        f"classifier {settings['classifier']}; the threshold has the highest "
        f"{TITLES[settings['threshold_by']]} in validation",
        f"added      {summary['rows_to_add']:,} rows of class {summary['rare_class']}, up to "
        f"{settings['rare_share']:.0%} of the training rows",
        *_generator(summary),
        *(f"note       {note}" for note in summary["reading"]),
        *(f"WARNING    {warning}" for warning in [*summary["warnings"], *_unfinished(summary)]),
    ]
    for name, test in summary["tests"].items():
        lines += ["", *_of_test(name, test, summary)]
    return lines


def _unfinished(summary: Mapping[str, Any]) -> list[str]:
    count, every = summary["unfinished_classifiers"], summary["classifiers"]
    if not count:
        return []
    mend = " (--classifier_epochs)" if summary["settings"]["classifier"] == "mlp" else ""
    return [f"{count} of {every} classifiers were ended by the limit of their training{mend}"]


def _part(name: str, counts: Mapping[str, int], summary: Mapping[str, Any]) -> str:
    told = (
        f"{name:10} {counts['rows']:,} rows, {counts['rare']:,} of class {summary['rare_class']}, "
        f"{counts['groups']:,} groups"
    )
    known = summary["test_groups_in_training"].get(name)
    return told if known is None else f"{told}, {known:,} of them in training too"


def _generator(summary: Mapping[str, Any]) -> list[str]:
    made = summary["generator"]
    if made is None:
        return []
    losses, wanted = made["losses"], summary["rows_to_add"]
    returned = [counts["returned"] for counts in made["by_seed"].values()]
    lines = [
        f"generator  learned from {made['learned_from']:,} training rows, {made['held_out']:,} "
        f"held out; held-out loss {losses['model']:.4f}, best linear guess "
        f"{losses['linear']:.4f}, zero {losses['zero']:.4f}",
        f"gate       returned {min(returned):,} to {max(returned):,} of {wanted:,} rows a seed",
    ]
    if not made["better_than_linear"] or losses["model"] >= losses["zero"]:
        lines.append(
            "WARNING    the generator tells held-out rows no better than a Gaussian of each class, "
            "or than nothing: more rows or --steps may help"
        )
    if min(returned) < wanted:
        lines.append(
            f"WARNING    up to {wanted - min(returned):,} of {wanted:,} generated rows of a seed "
            "are missing: too few candidates were good enough, and none is filled in"
        )
    return lines


def _of_test(name: str, test: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    methods, settings = test["methods"], summary["settings"]
    seeds = len(methods[PLAIN]["metrics"]["f1"]["values"])
    means = [
        [method, *(_mean(found["metrics"][metric]) for metric in TITLES)]
        for method, found in methods.items()
    ]
    gains = [
        [method, *(interval_text(found["difference"][metric]) for metric in TITLES)]
        for method, found in methods.items()
        if method != PLAIN
    ]
    lines = aligned([f"{name}, {seeds_told(seeds)}", *TITLES.values()], means)
    if gains:
        resamples = f"difference to {PLAIN} [95 %, {settings['bootstrap_samples']:,} resamples]"
        lines += ["", *aligned([resamples, *TITLES.values()], gains), f"{STAR[1]} {AGREE}", ""]
        lines += verdicts(methods)
        if seeds == 1:
            lines.append("WARNING    one seed: how much training varies is not known")
    beside = beside_rivals(test["less_rival"])
    lines += ["", *beside] if beside else []
    without = test["resamples_without_a_class"]
    if without:
        lines.append(
            f"WARNING    {without:,} of {settings['bootstrap_samples']:,} resamples have not both "
            "classes and are left out"
        )
    return lines


def verdicts(methods: Mapping[str, Any]) -> list[str]:
    """A sentence a metric: what helps, what harms, and of what nothing is shown."""
    lines = []
    for metric, title in TITLES.items():
        by: dict[str, list[str]] = {}
        for method, found in methods.items():
            if method != PLAIN:
                by.setdefault(found["difference"][metric]["verdict"], []).append(method)
        told = [f"{kind}: {', '.join(by[kind])}" for kind in ORDER if kind in by]
        lines.append(f"{title:6} {'; '.join(told)}")
    return lines


def beside_rivals(less_rival: Mapping[str, Any]) -> list[str]:
    """Whether generated rows do more than each cheaper method."""
    return [
        f"{title:6} {name}: {_beside({r: found[metric]['verdict'] for r, found in rivals.items()})}"
        for name, rivals in less_rival.items()
        if rivals
        for metric, title in TITLES.items()
    ]


def _beside(verdicts: Mapping[str, str]) -> str:
    """In words, of the verdict on a method against each rival."""
    if TOO_FEW in verdicts.values():
        return TOO_FEW
    of = {kind: [name for name, each in verdicts.items() if each == kind] for kind in ORDER}
    told = [
        f"{what} {', '.join(of[kind])}"
        for what, kind in (("better than", HELPS), ("worse than", HARMS))
        if of[kind]
    ]
    if of[SAME]:
        told.append(f"no difference to {'the others' if told else 'any rival'} shown")
    return "; ".join(told)


def seeds_told(count: int) -> str:
    """What the numbers of so many seeds are."""
    return "one seed" if count == 1 else f"mean of {count} seeds ± deviation"


def _mean(found: Mapping[str, Any]) -> str:
    return f"{found['mean']:.3f}" + ("" if found["std"] is None else f" ± {found['std']:.3f}")


def interval_text(found: Mapping[str, Any]) -> str:
    """A difference with its interval, and a star where something is shown."""
    low, high = found["ci95"]
    star = STAR if found["verdict"] in (HELPS, HARMS) else ""
    return f"{found['mean']:+.3f} [{low:+.3f}, {high:+.3f}]{star}"
