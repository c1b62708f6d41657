"""The residues a batch with which this machine trains a generator of peptides fastest, measured."""

import sys

from jobs.cli import main, say
from pipeline.peptides.settings import TunePeptidesSettings
from pipeline.runtime.text import aligned


def tune_peptides(settings: TunePeptidesSettings) -> None:
    """Try sizes, print what each gave, and name the best."""
    from pipeline.peptides.tuning import tune_peptides as tune

    trials, best = tune(settings)
    rows = [
        (
            f"{trial.batch_residues:,}", f"{trial.memory_gb:.2f}", f"{trial.rate:,.0f}",
            f"{trial.waiting_share:.1%}", "best" if trial == best else "",
        )
        for trial in trials
    ]  # fmt: skip
    header = ("batch_residues", "GiB", "residues/s", "waiting for data", "")
    say(
        *aligned(header, rows),
        "",
        f"Train by: jobs.generate_peptides --batch_residues {best.batch_residues}; another batch",
        "trains another model, so --steps and --lr may have to change with it.",
    )


if __name__ == "__main__":
    sys.exit(main(TunePeptidesSettings, tune_peptides, "tune_peptides"))
