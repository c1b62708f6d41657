"""What a comparison found, as a text to read in a minute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.comparison.run_folders import ARMS
from pipeline.comparison.statistics import BETTER
from pipeline.evaluation.audit import rival_lines, warning_of
from pipeline.evaluation.metrics import METRICS
from pipeline.runtime.text import aligned

TITLES = {"auroc": "AUROC", "aupr": "AUPR", "fpr95": "FPR at 95 % TPR"}
COSTS = {
    "encoding_time_seconds": "Encoding, s",
    "train_time_seconds": "Training, s",
    "avg_epoch_time_seconds": "One epoch, s",
    "eval_time_seconds": "Validation and test, s",
    "peak_gpu_memory_encoding_gb": "GPU memory, encoding, GiB",
    "peak_gpu_memory_train_gb": "GPU memory, training, GiB",
    "peak_gpu_memory_eval_gb": "GPU memory, evaluation, GiB",
    "peak_resident_memory_encoding_gb": "Resident memory, encoding, GiB",
    "peak_resident_memory_train_gb": "Resident memory, training, GiB",
    "peak_resident_memory_eval_gb": "Resident memory, evaluation, GiB",
}


def spread_text(found: Mapping[str, Any]) -> str:
    """Mean ± standard deviation, "0.912 ± 0.004"."""
    if found["mean"] is None:
        return "–"
    return f"{found['mean']:.3f}" + ("" if found["std"] is None else f" ± {found['std']:.3f}")


def summary_text(summary: dict[str, Any]) -> str:
    """The summary of `summarize`, also one read back from JSON, as plain text."""
    arms, improvement = summary["arms"], summary["improvement"]
    molecules = summary["test_molecules"]
    seeds = ", ".join(map(str, summary["seeds"])) or "none"
    metrics = [
        [
            f"{TITLES[name]} ({BETTER[name]} is better)",
            *(spread_text(arms[arm]["metrics"][name]) for arm in ARMS),
            "–" if improvement is None else _difference(improvement[name], sign="+"),
        ]
        for name in METRICS
    ]
    costs = [
        [title, *(_cost_cell(arms[arm]["costs"].get(key)) for arm in ARMS)]
        for key, title in COSTS.items()
        if any(key in arms[arm]["costs"] for arm in ARMS)
    ]
    lines = [
        f"Seeds: {seeds}. Test molecules: {molecules['id']:,} ID, {molecules['ood']:,} OOD.",
        "",
        *aligned(["", *ARMS, "finetuned − frozen [95 % interval]"], metrics),
        "",
        "± is the standard deviation over seeds. The interval is over test molecules, the same",
        "for every run; how much the seeds differ is not in it.",
    ]
    if improvement is not None and improvement["auroc"]["seeds"] != summary["seeds"]:
        both = ", ".join(map(str, improvement["auroc"]["seeds"]))
        lines += [f"finetuned − frozen is over the seeds that both arms finished: {both}."]
    lines += _rivals(summary.get("rivals"), arms)
    if costs:
        lines += ["", *aligned(["Mean over runs (highest)", *ARMS], costs)]
    shared = summary.get("shared_encoding")
    if shared is not None:
        lines += [
            "",
            f"Before all runs, {shared['molecules']:,} molecules were encoded for them in "
            f"{shared['encoding_time_seconds']:.1f} s.",
        ]
    if summary.get("parallel_runs", 1) > 1:
        lines += [
            f"{summary['parallel_runs']} runs at a time shared the machine: times are longer."
        ]
    if summary["failed"]:
        lines += ["", "Failed runs:"]
        lines += [f"  {f['arm']}, seed {f['seed']}: {f['reason']}" for f in summary["failed"]]
    return "\n".join([*lines, "", conclusion(improvement), ""])


def _rivals(made: dict[str, Any] | None, arms: Mapping[str, Any]) -> list[str]:
    """What needs no training, and which arms do not stand above it."""
    if not made:
        return []
    means = {arm: arms[arm]["metrics"]["auroc"]["mean"] for arm in ARMS}
    warnings = [
        warning_of(made, mean, f"the {arm} encoder")
        for arm, mean in means.items()
        if mean is not None
    ]
    lines = ["", "AUROC on these molecules of what needs no training:", *rival_lines(made)]
    return lines + [f"Warning: {warning}." for warning in warnings if warning]


def _difference(found: Mapping[str, Any], sign: str) -> str:
    low, high = found["ci95"]
    return f"{found['mean']:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"


def _cost_cell(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{found['mean']:.2f} ({found['max']:.2f})"


def conclusion(improvement: dict[str, Any] | None) -> str:
    """What finetuning changes, in a sentence: shown only if the interval and all seeds agree."""
    if improvement is None:
        return "No seed finished in both arms: nothing to conclude."
    auroc = improvement["auroc"]
    low, high = auroc["ci95"]
    better = sum(value > 0 for value in auroc["values"].values())
    seeds = f"better with {better} of {len(auroc['seeds'])} seeds"
    if low <= 0 <= high:
        return (
            f"Finetuning changes AUROC by {_difference(auroc, sign='+')}; the interval includes 0: "
            f"no difference shown ({seeds})."
        )
    raised = low > 0
    if better != (len(auroc["values"]) if raised else 0):
        return (
            f"Finetuning changes AUROC by {_difference(auroc, sign='+')}; the interval excludes 0, "
            f"but the seeds disagree ({seeds}): no difference shown."
        )
    size = {"mean": abs(auroc["mean"]), "ci95": sorted(abs(bound) for bound in (low, high))}
    return (
        f"Finetuning {'raises' if raised else 'lowers'} AUROC by {_difference(size, sign='')}; "
        f"the interval excludes 0 ({seeds})."
    )
