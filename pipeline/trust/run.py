"""What jobs.trust calls: predictions and measured values to what a table's scores are worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.runtime.files import json_bytes, write_atomically
from pipeline.runtime.text import aligned
from pipeline.trust.judged import ORACLE, RANDOM, all_scores, judged
from pipeline.trust.metrics import METRICS
from pipeline.trust.settings import TrustSettings
from pipeline.trust.table import read_predictions

HEADINGS = {
    "spearman": "Spearman", "auroc_worst": "AUROC worst fifth", "rmse_kept_50": "RMSE of best 50 %",
    "rmse_kept_80": "of best 80 %", "excess_aurc": "excess AURC",
}  # fmt: skip


def run_trust(settings: TrustSettings) -> dict[str, Any]:
    """Judge the scores of a table; write trust.json, trust.txt and retention.png.

    Returns
    -------
    dict
        As `judged`, with what was read, ready for JSON; `text`, the lines of trust.txt.

    Raises
    ------
    InputError
        As `read_predictions`.
    """
    from pipeline.trust.figures import trust_figure  # imports matplotlib

    table = read_predictions(settings)
    found = judged(
        table, alpha=settings.interval_alpha, samples=settings.bootstrap_samples, seed=settings.seed
    )
    inside = table.in_domain
    results = {
        "data_file": settings.data_file,
        "rows": table.rows,
        "left_out": table.left_out,
        "notes": table.notes,
        "in_domain": None if inside is None else int(inside.sum()),
        "domain_by": table.domain_by,
        "interval_alpha": settings.interval_alpha,
        "bootstrap_samples": settings.bootstrap_samples,
        **found,
    }
    text = trust_lines(results)
    folder = settings.output_dir
    write_atomically(f"{folder}/trust.json", json_bytes(results))
    write_atomically(f"{folder}/trust.txt", ("\n".join(text) + "\n").encode())
    errors = np.abs(table.label - table.prediction)
    scores = all_scores(table, settings.seed)
    trust_figure(scores, errors, found["scores"], f"{folder}/retention.png")
    return {**results, "text": text}


def trust_lines(results: dict[str, Any]) -> list[str]:
    """The results as lines for the user."""
    left_out = ", ".join(f"{count:,} with {why}" for why, count in results["left_out"].items())
    domain = (
        "all rows are taken as in domain; --id_file or --split_column tells them apart"
        if results["in_domain"] is None
        else f"{results['in_domain']:,} of them in domain, by {results['domain_by']}"
    )
    made = {n: each for n, each in results["intervals"].items() if "not_made" not in each}
    share = f"{100 * (1 - results['interval_alpha']):g} %"
    return [
        *(f"note       {note}" for note in results["notes"]),
        f"rows       {results['rows']:,}, {results['molecules']:,} judged"
        + (f"; left out: {left_out}" if left_out else ""),
        f"domain     {domain}",
        f"RMSE       {results['rmse']:.3f} of all predictions",
        "",
        "Does the score find the errors? (95 % intervals over molecules)",
        *aligned(["score", *HEADINGS.values()], _score_rows(results["scores"])),
        "",
        f"Intervals that should hold {share}: prediction ∓ q · score; half of the rows in domain "
        "give q",
        *aligned(
            ["scaled by", "in domain", "mean width", "out of domain", "mean width"],
            [_interval_row(name, each) for name, each in made.items()],
        ),
        *(
            f"{_interval_name(name)}: not made, {each['not_made']}"
            for name, each in results["intervals"].items()
            if name not in made
        ),
        *(f"warning    {warning}" for warning in results["warnings"]),
    ]


def _score_rows(scores: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, found in scores.items():
        cells = []
        for metric in METRICS:
            low, high = found[f"{metric}_ci95"]
            exact = name == ORACLE and metric in ("spearman", "auroc_worst", "excess_aurc")
            cells.append(f"{found[metric]:.3f}" + ("" if exact else f" [{low:.3f}, {high:.3f}]"))
        shown = {RANDOM: "random", ORACLE: "oracle (the errors themselves)"}.get(name, name)
        rows.append([shown, *cells])
    return rows


def _interval_row(name: str, each: dict[str, Any]) -> list[str]:
    cells = []
    for kind in ("in_domain", "out_of_domain"):
        part = each.get(kind)
        cells += [f"{part['coverage']:.3f}", f"{part['width']:.3f}"] if part else ["–", "–"]
    return [_interval_name(name), *cells]


def _interval_name(name: str) -> str:
    return {"constant": "nothing (constant)", "given": "the table's own"}.get(name, name)
