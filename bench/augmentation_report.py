"""The page of bench.augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.report import cpu_name, markdown
from pipeline.augmentation.intervals import HARMS, HELPS, SAME
from pipeline.augmentation.methods import PLAIN
from pipeline.augmentation.summary_text import TITLES, beside_rivals, interval_text, verdicts
from pipeline.runtime.nodes.machine import usable_cores

PUBLISHED = {"f1": 0.451, "mcc": 0.333, "auroc": 0.786, "aupr": 0.429}  # GraphPPIS on Test_60
HEADINGS = {
    "hiv": "HIV screen, MiniMol features, scaffold split",
    "ppi": "Protein interaction sites, windows of residues",
}
Summary = Mapping[str, Any]


def report(found: Mapping[str, Mapping[str, Summary]], molecules: int) -> str:
    """The page.

    Parameters
    ----------
    found : by data set and classifier, the content of augmentation_summary.json.
    """
    lines = [
        "# Does generated data help to find a rare class?",
        "",
        "`python -m bench.augmentation --hiv ../shared/data/hiv.csv.gz --ppi "
        f"../shared/data/ppi_sites.parquet --out FOLDER` on {cpu_name()}, {usable_cores()} cores. "
        "Each method changes only the training rows; features, classifier, steps of its training "
        "and the choice of the threshold (highest MCC in validation) are the same. Five seeds; one "
        "diffusion model (four blocks of width 256, 2,000 steps of training: smaller than the "
        "default, for time), whose samples are drawn anew for each seed (DPM-Solver++, 30 steps). "
        "Intervals: 1,000 resamples of whole test groups, the mean over seeds in each; they are "
        "not adjusted for the number of comparisons. A method *helps* or *harms* if the interval "
        "excludes 0 and all seeds agree. Logistic regression has one seed. The runs shared the "
        "machine with other work, so their seconds measure nothing.",
        "",
        *_shown(found),
    ]
    for name, of_data in found.items():
        lines += ["", f"## {HEADINGS[name]}", "", _setting(name, of_data["mlp"], molecules)]
        for test in of_data["mlp"]["tests"]:
            lines += ["", *_of_test(test, of_data)]
    return "\n".join(lines) + "\n"


def _shown(found: Mapping[str, Mapping[str, Summary]]) -> list[str]:
    """On how many of the tests and metrics each method is shown to help or to harm."""
    tests = [test for of_data in found.values() for test in of_data["mlp"]["tests"].values()]
    methods = [name for name in tests[0]["methods"] if name != PLAIN]
    rows = []
    for name in methods:
        told = [
            each["verdict"]
            for test in tests
            for each in test["methods"][name]["difference"].values()
        ]
        rows.append([name, *(str(told.count(kind)) for kind in (HELPS, HARMS, SAME))])
    header = f"of {len(tests)} tests × {len(TITLES)} metrics"
    return markdown([header, HELPS, HARMS, SAME], rows)


def _setting(name: str, summary: Summary, molecules: int) -> str:
    parts = "; ".join(
        f"{part} {counts['rows']:,} rows, {counts['rare']:,} rare, {counts['groups']:,} groups"
        for part, counts in summary["parts"].items()
    )
    made = summary["generator"]
    returned = [counts["returned"] for counts in made["by_seed"].values()]
    candidates = [counts["candidates"] for counts in made["by_seed"].values()]
    about = {
        "hiv": f"A seeded sample of {molecules:,} of the screen's molecules, `jobs.split --by "
        "scaffold`; groups are scaffolds. ood_test has other scaffolds than training, iid_test was "
        "cut from the same molecules at random.",
        "ppi": "Each residue with three neighbours on either side (zeros beyond the chain's ends): "
        "378 columns; a fifth of Train_335's proteins validates; groups are proteins. At most 15 "
        "epochs of the MLP, which stops after 3 without a better one.",
    }
    return (
        f"{about[name]} {parts}. Rows added: {summary['rows_to_add']:,}, to a rare share of "
        f"{summary['settings']['rare_share']:.0%}. The diffusion model learned from "
        f"{made['learned_from']:,} rows ({made['train_time_seconds']:.0f} s): held-out loss "
        f"{made['losses']['model']:.3f}, best linear guess "
        f"{made['losses']['linear']:.3f}, zero {made['losses']['zero']:.3f}. The gate "
        f"returned {min(returned):,} to {max(returned):,} of {min(candidates):,} to "
        f"{max(candidates):,} candidates a seed."
    )


def _of_test(test: str, of_data: Mapping[str, Summary]) -> list[str]:
    rows = [
        [f"{method} ({classifier})" if classifier != "mlp" else method,
         *(_mean(each["metrics"][metric]) for metric in TITLES)]
        for classifier, summary in of_data.items()
        for method, each in summary["tests"][test]["methods"].items()
    ]  # fmt: skip
    if test == "Test_60":
        rows.append(["GraphPPIS, published", *(f"{PUBLISHED[metric]:.3f}" for metric in TITLES)])
    found = of_data["mlp"]["tests"][test]
    gains = [
        [method, *(interval_text(each["difference"][metric]) for metric in TITLES)]
        for method, each in found["methods"].items()
        if method != PLAIN
    ]
    return [
        f"### {test}",
        "",
        *markdown([f"{test}, mean ± deviation over seeds", *TITLES.values()], rows),
        "",
        *markdown([f"MLP, difference to {PLAIN} [95 %]", *TITLES.values()], gains),
        "",
        *(f"- {' '.join(line.split())}" for line in verdicts(found["methods"])),
        *(f"- {' '.join(line.split())}" for line in beside_rivals(found["less_rival"])),
    ]


def _mean(found: Mapping[str, Any]) -> str:
    return f"{found['mean']:.3f}" + (f" ± {found['std']:.3f}" if found["std"] is not None else "")
