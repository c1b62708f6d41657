"""What generated peptides are worth, beside held-out real ones, shuffled ones and random ones.

`python -m bench.peptides peptides_amp_vs_uniprot.csv.gz --out FOLDER` writes peptides.md. The table
has its classes' names in the header, as scikit-learn's tables have, and lies beside MolSieve's test
data. Results lie in FOLDER, and a run that was stopped goes on. Needs the extras `peptides`, `esm`
and, for probabilities, `macrel`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path
from typing import Any

from bench.report import cpu_name, markdown, with_interval
from pipeline.peptides.controls import MEASURES, told_verdict
from pipeline.peptides.run import run_peptides
from pipeline.peptides.settings import GeneratePeptidesSettings
from pipeline.runtime.telemetry import configure_logging

# As small as two busy cores are through with in minutes.
SMALL = {
    "width": 96, "blocks": 4, "batch_residues": 1024, "steps": 8000, "checkpoint_every": 250,
    "lr": 2e-3, "ema_decay": 0.998, "sampler": "dpm++", "num_samples": 400,
}  # fmt: skip


def main() -> None:
    """Train, draw, judge, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default="mini-protein")
    given = parser.parse_args()
    configure_logging()
    settings = GeneratePeptidesSettings(
        **SMALL, data_file=str(_with_header(given.table, given.out)),
        sequence_column="sequence", class_column="class", weights=given.weights,
        output_dir=str(given.out), cache_root=str(given.out / "store"), dataset=given.table.name,
    )  # fmt: skip
    summary = run_peptides(settings)
    Path(__file__).with_suffix(".md").write_text("\n".join(page(summary, given)) + "\n")


def _with_header(table: Path, out: Path) -> Path:
    """The table with columns `sequence` and `class`."""
    with gzip.open(table, "rt") as file:
        (_, _, *names), *rows = csv.reader(file)
    path = out / "peptides.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        lines = ((sequence.strip(), names[int(number)]) for sequence, number in rows)
        csv.writer(file).writerows([("sequence", "class"), *lines])
    return path


def page(summary: dict[str, Any], given: argparse.Namespace) -> list[str]:
    """The page's lines, of a run's summary."""
    made, best = summary["generator"], summary["generator"]["at_best_step"]
    found = summary["peptides"].items()
    by_class = summary["peptides_by_class"].items()
    parts = (f"{n} {p['train']:,} to train on, {p['held_out']:,} held out" for n, p in by_class)
    return [
        "# Generated peptides",
        "",
        f"`python -m bench.peptides {given.table.name} --out FOLDER --weights {given.weights}` on "
        f"{cpu_name()}: {', '.join(f'{name} {value}' for name, value in SMALL.items())}.",
        "",
        f"Latents: {summary['latents']}, {made['latent_columns']} columns a residue. "
        f"{summary['rows_in']:,} rows, {summary['rows_used']:,} used: {'; '.join(parts)} "
        f"({summary['held_out']}).",
        "",
        f"Generator: {made['parameters']:,} parameters, {SMALL['steps']:,} steps, noise shifted "
        f"{made['noise_shift']:g} times, "
        f"{made['train_time_seconds']:.0f} s of a busy machine, of which "
        f"{made['waiting_share']:.1%} were spent waiting for data. Loss on held-out peptides "
        f"{best['heldout_loss']:.3f}, of the best linear guess {best['linear_loss']:.3f}, of zero "
        f"{best['zero_loss']:.3f}. The decoder tells {best['decoder_right_0']:.1%} of held-out "
        f"residues right, with noise of half a deviation {best['decoder_right_0.5']:.1%}, of a "
        f"whole one {best['decoder_right_1']:.1%}.",
        "",
        *markdown(
            ("class", "peptides", "valid", "uniqueness", "copies of training"),
            [(name, f"{each['peptides']:,}", f"{each['valid']:,}", f"{each['uniqueness']:.4f}",
              f"{each['copies_of_training']:,}") for name, each in found],
        ),
        "",
        "All beside training peptides of the class, equally many of each; identity is that to the "
        "nearest training peptide of any class, and antimicrobial and hemolytic are Macrel's mean "
        "probabilities (its models may have been trained on some of the real ones). In brackets "
        "the 95 % interval of a bootstrap over peptides, of real and shuffled ones over clusters. "
        "Lengths of generated and random peptides are drawn from training ones, so that their "
        "divergence is no merit; shuffled ones have held-out ones' lengths. That held-out peptides "
        "are new and unlike training ones is by construction: they were chosen so.",
        "",
        *(f"- {told_verdict(*each)}" for each in summary["nearer_than_controls"].items()),
        *(line for each in summary["measures"].items() for line in _measures(*each)),
    ]  # fmt: skip


def _measures(name: str, samples: dict[str, dict[str, Any]]) -> list[str]:
    shown = [each for each in MEASURES if each in next(iter(samples.values()))]
    rows = [
        [sample, f"{found['uniqueness']:.3f}", f"{found['novelty']:.3f}"]
        + [with_interval([found[m], *found[f"{m}_ci95"]]) for m in shown]
        for sample, found in samples.items()
    ]
    count = next(iter(samples.values()))["rows"]
    header = ("", "uniqueness", "novelty", *(MEASURES[each] for each in shown))
    return ["", f"## {name}: {count:,} each", "", *markdown(header, rows)]


if __name__ == "__main__":
    main()
