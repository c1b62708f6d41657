"""The batch sizes at which this machine encodes fastest, measured and kept for jobs.encode."""

import sys

from jobs.cli import main, say
from pipeline.encoding.settings import TuneSettings
from pipeline.runtime.text import aligned


def tune(settings: TuneSettings) -> None:
    """Try sizes, print what each gave, and keep the best."""
    from pipeline.encoding.cost.tuning import tune as tune_encoding

    trials, best = tune_encoding(settings)
    rows = [
        (
            f"{trial.encoding_batch_size:,}", f"{trial.tokens:,}", f"{trial.padding_share:.1%}",
            f"{trial.memory_gb:.2f}", f"{trial.rate:.1f}", "chosen" if trial == best else "",
        )
        for trial in trials
    ]  # fmt: skip
    header = ("encoding_batch_size", "tokens a batch", "padding", "GiB", "molecules/s", "")
    say(
        *aligned(header, rows),
        "",
        f"Kept in {settings.cache_root}: encoding with this store, these weights and this",
        "precision uses it on this kind of device from now on.",
    )


if __name__ == "__main__":
    sys.exit(main(TuneSettings, tune, "tune"))
