"""A training set and a library to a verdict: which predictions not to trust."""

import sys

from jobs.cli import main, say
from jobs.score import tell_scores
from jobs.train import tell_training
from pipeline.scoring.screen import ScreenSettings
from pipeline.scoring.verdict_text import verdict_lines


def screen(settings: ScreenSettings) -> None:
    """Train, score, and end with a verdict."""
    from pipeline.scoring.screen import run_screen

    made = run_screen(settings)
    say("training")
    tell_training(made["training"], f"{settings.output_dir}/training")
    say("", "library")
    tell_scores(made["scores"], settings.output_dir)
    say("", "verdict", *(f"  {line}" for line in verdict_lines(made["verdict"])))


if __name__ == "__main__":
    sys.exit(main(ScreenSettings, screen, "screen"))
